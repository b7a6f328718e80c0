"""XML from anywhere, read without entities and without anything that it refers to."""

import base64
import binascii
import codecs
from contextlib import suppress
from xml.etree.ElementTree import Element, ParseError, TreeBuilder

import numpy as np
from numpy.typing import NDArray

from ecgbatch.records.formats.library import library
from ecgbatch.records.recording import Reason, RecordError

_LARGEST, _MOST_ELEMENTS, _DEEPEST = 16 << 20, 50_000, 100
_LONGEST_LIST = 8_000_000
"""Characters of a lead's samples: a million and more."""

_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


def root_name(head: bytes) -> str:
    """The name of the root element, without namespace, of a document that begins so; empty for all else."""
    text = _text(head)
    at = 0
    while (at := text.find("<", at)) >= 0:
        if text[at : at + 4] == "<!--":
            end, at = "-->", at + 4
        elif text[at : at + 2] in ("<?", "<!"):
            end, at = ">", at + 2
        else:
            name = text[at + 1 : at + 80].replace("/", " ").replace(">", " ").split()
            return name[0].rpartition(":")[2] if name else ""
        if (at := text.find(end, at)) < 0:
            return ""
    return ""


def _text(head: bytes) -> str:
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return head[len(mark) :].decode(encoding, "ignore")
    if head[:4] in (b"<\0?\0", b"\0<\0?"):
        return head.decode("utf-16-le" if head[0] else "utf-16-be", "ignore")
    text = head.decode("latin-1")
    return text if text.lstrip()[:1] == "<" else ""


class _Builder(TreeBuilder):
    """Builds a tree without namespaces, and no larger than any recording's."""

    def __init__(self) -> None:
        super().__init__()
        self._count = self._depth = 0

    def start(self, tag: str, attributes: dict[str, str], /) -> Element:
        self._count += 1
        self._depth += 1
        if self._count > _MOST_ELEMENTS or self._depth > _DEEPEST:
            raise RecordError(Reason.TOO_LARGE, f"more than {_MOST_ELEMENTS} elements, or deeper than {_DEEPEST}")
        return super().start(tag.rpartition("}")[2], attributes)

    def end(self, tag: str, /) -> Element:
        self._depth -= 1
        return super().end(tag.rpartition("}")[2])


def parse(data: bytes) -> Element:
    """The root of a document, namespaces taken off. Raises RecordError for what is not well-formed or not safe."""
    if len(data) > _LARGEST:
        raise RecordError(Reason.TOO_LARGE, f"an XML file of {len(data)} bytes, more than {_LARGEST}")
    data = data.lstrip(b" \t\r\n") if data[:1].isspace() else data  # which no XML declaration may stand behind
    try:
        return _tree(data)
    except ParseError as error:
        if not (data.isascii() or data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            with suppress(ParseError):
                return _tree(data.decode("latin-1"))  # which devices write and call UTF-8
        raise RecordError(Reason.UNREADABLE_SIGNAL, "the XML is not well-formed, or cut off") from error


def _tree(document: bytes | str) -> Element:
    reader = library("defusedxml.ElementTree", "defusedxml")
    common = library("defusedxml.common", "defusedxml")
    parser = reader.DefusedXMLParser(target=_Builder())
    try:
        parser.feed(document)
        root: Element = parser.close()
    except common.DefusedXmlException as error:
        raise RecordError(Reason.UNREADABLE_SIGNAL, "the XML defines entities or refers to other files") from error
    except (ValueError, LookupError) as error:
        raise RecordError(Reason.UNREADABLE_SIGNAL, "the XML is in no encoding that is known") from error
    return root


def text(element: Element | None, path: str = ".") -> str:
    """The text of the element at `path` below `element`; empty where there is none."""
    found = element.find(path) if element is not None else None
    return (found.text or "").strip() if found is not None else ""


def number(content: str | None, what: str) -> float:
    """A finite number. Raises RecordError, which names `what` it should have been."""
    try:
        value = float(content or "")
    except ValueError:
        value = float("nan")
    if not abs(value) < float("inf"):
        raise RecordError(Reason.UNREADABLE_SIGNAL, f"the file has no {what} that is a number")
    return value


def numbers(content: str) -> NDArray[np.float64]:
    """Numbers between spaces or commas. Raises RecordError if anything else is among them."""
    if len(content) > _LONGEST_LIST:
        raise RecordError(Reason.TOO_LARGE, f"a lead's samples take more than {_LONGEST_LIST} letters")
    try:
        return np.array(list(map(float, content.replace(",", " ").split())))
    except ValueError as error:
        raise RecordError(Reason.UNREADABLE_SIGNAL, "samples of a lead are no numbers") from error


def decoded_base64(content: str) -> bytes:
    """Raises RecordError if it is no base64."""
    try:
        return base64.b64decode("".join(content.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RecordError(Reason.UNREADABLE_SIGNAL, "the waveform is no base64") from error
