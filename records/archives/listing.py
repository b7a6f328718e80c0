"""The records that `RECORDS` names, and the `RECORDS` in the folders that it names, as PhysioNet nests them."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

from ecgbatch.records.archives.demographics import from_comments
from ecgbatch.records.archives.lines import lines
from ecgbatch.records.archives.search import LINK_OUT, UNREADABLE_LIST, Search
from ecgbatch.records.archives.walk import walk
from ecgbatch.records.paths import write_down
from ecgbatch.records.recording import Record
from ecgbatch.records.remote import AT_ONCE, url_of
from ecgbatch.settings import EcgbatchError


def listed_records(search: Search) -> Iterator[Record]:
    """The records of `RECORDS`, each folder once. Raises EcgbatchError if the first of them cannot be read."""
    if url_of(search.root) is None:
        return (found() for found in _listed(search))
    return _ahead(_listed(search))


def _ahead(records: Iterator[Callable[[], Record]]) -> Iterator[Record]:
    """The records in order, of which many are asked for at the same time."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        coming = deque(pool.submit(record) for record in islice(records, AT_ONCE))
        while coming:
            yield coming.popleft().result()
            coming.extend(pool.submit(record) for record in islice(records, 1))


def _listed(search: Search) -> Iterator[Callable[[], Record]]:
    """What gives each record, when it is called, by looking at its header."""
    stack = [_Listing(search, "")]
    seen = {search.place.identity("")}
    while stack:
        try:
            name = next(stack[-1].names, None)
        except EcgbatchError:
            if len(stack) == 1:
                raise
            search.passed_over.add(UNREADABLE_LIST, f"{stack[-1].prefix}RECORDS")
            name = None
        if name is None:
            stack.pop()
            continue
        path = stack[-1].prefix + name
        # A folder that is not there becomes a record that cannot be read: seen, and in nobody's way.
        if not name.endswith("/") or not is_below(path) or not search.place.is_folder(path):
            on_disk, member = as_on_disk(search, path.rstrip("/"))
            if on_disk:
                yield partial(_record, search, on_disk, member)
        elif not search.place.may_enter(path):
            search.passed_over.add(LINK_OUT, path)
        elif (folder := search.place.identity(path)) not in seen:
            seen.add(folder)
            if search.place.exists(f"{path}RECORDS"):
                stack.append(_Listing(search, path))
            else:
                yield from (partial(_itself, record) for record in walk(search, path))


def _itself(record: Record) -> Record:
    return record


class _Listing:
    """One `RECORDS` file that is being read. `prefix` is its folder's path, with `/` at the end, or empty."""

    def __init__(self, search: Search, prefix: str) -> None:
        self.prefix = prefix
        self.names = (name.removeprefix("./") for name in lines(search.text(f"{prefix}RECORDS")) if name.strip())


def _record(search: Search, path: str, member: str | None) -> Record:
    age, sex = from_comments(search.header(path)[1]) if is_below(path) else (None, None)
    return Record(write_down(path, member), age, sex)


def as_on_disk(search: Search, listed: str) -> tuple[str, str | None]:
    r"""A listed path as it is on disk, and the record's ID of `FILE::ID`: as it stands if there is such a file.

    Else without what lists add: blanks around it, `./`, `.hea`, and `\` for `/`.
    """
    tidy = listed.strip()
    if "\\" in tidy or "::" in tidy or tidy != listed:
        if is_below(listed) and search.file_of(listed):
            return listed, None
        tidy = tidy.replace("\\", "/")
    while tidy.startswith("./"):
        tidy = tidy[2:]
    file, separator, member = tidy.partition("::")
    return (file, member) if separator else (tidy.removesuffix(".hea"), None)


def is_below(path: str) -> bool:
    """Whether a path leads down; `./`, which a listing could follow for ever, does not."""
    return all(part not in ("", ".", "..") for part in path.removesuffix("/").split("/"))
