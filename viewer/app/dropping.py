"""The page that takes files to be scored."""

import secrets

from tornado.httputil import HTTPFile, HTTPInputError, parse_body_arguments
from tornado.web import stream_request_body

from ecgbatch.settings import EcgbatchError
from ecgbatch.viewer.app.handler import Handler
from ecgbatch.viewer.app.upload import LARGEST_UPLOAD, MOST_RECORDS, score_files

SEXES = ("male", "female")
OLDEST = 120


@stream_request_body
class Score(Handler):
    """Takes files and scores them; nothing of them is written where it stays."""

    def prepare(self) -> None:
        self._sent = bytearray()
        self._too_large = False
        super().prepare()

    def data_received(self, chunk: bytes) -> None:
        """Keeps as much as may be sent; the rest passes by, so that the browser comes to see the answer."""
        self._too_large = self._too_large or len(self._sent) + len(chunk) > LARGEST_UPLOAD
        if not self._too_large and not self._finished:
            self._sent += chunk

    async def answer(self, *_: str) -> None:
        self.show("score.html", "Score files", largest=LARGEST_UPLOAD >> 20, most=MOST_RECORDS)

    async def take(self, *_: str) -> None:
        if self._too_large:
            return self.refuse(413, f"all files together may have {LARGEST_UPLOAD >> 20} MB")
        fields, files = self._parsed()
        age, sex = fields.get("age", ""), fields.get("sex", "")
        if sex and sex not in SEXES:
            raise EcgbatchError(f"sex is male, female or left out, not {sex[:20]!r}")
        how = (_age(age), SEXES.index(sex) if sex else None, fields.get("leads_missing") == "score")
        upload = await self.score(score_files, self.source, files, *how)
        token = secrets.token_urlsafe(16)  # whoever has the address sees the upload; nobody else can guess it
        self.source.files.put(token, upload)
        return self.redirect(f"/scored/{token}/0" if len(upload.records) == 1 else f"/scored/{token}", status=303)

    def _parsed(self) -> tuple[dict[str, str], list[HTTPFile]]:
        arguments: dict[str, list[bytes]] = {}
        files: dict[str, list[HTTPFile]] = {}
        kind = self.request.headers.get("Content-Type", "")
        try:
            parse_body_arguments(kind, bytes(self._sent), arguments, files, self.request.headers)
        except HTTPInputError:
            raise EcgbatchError("what was sent is no form with files, or has more than a hundred of them") from None
        named = [file for file in files.get("files", []) if file.filename and file.body]
        if not named:
            raise EcgbatchError("choose a file first")
        return {name: values[-1].decode("utf-8", "replace") for name, values in arguments.items()}, named


def _age(text: str) -> float | None:
    try:
        age = float(text.replace(",", ".")) if text else None
    except ValueError:
        age = -1.0
    if age is not None and not 0 <= age <= OLDEST:
        raise EcgbatchError(f"age is a number of years from 0 to {OLDEST}, or left out")
    return age
