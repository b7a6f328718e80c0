"""What all pages of the app share: whom they answer, what they forbid the browser, and how errors look."""

import asyncio
from collections.abc import Callable
from functools import partial
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, ParamSpec, TypeVar

from tornado.template import Loader
from tornado.web import RequestHandler

from ecgbatch import pages
from ecgbatch.db.browse import NotThere, TooSlow
from ecgbatch.db.engine import DatabaseAway
from ecgbatch.db.outcomes import as_shown
from ecgbatch.models.config import meaning_of
from ecgbatch.printing import duration
from ecgbatch.settings import EcgbatchError
from ecgbatch.viewer import inline
from ecgbatch.viewer.app.source import Source
from ecgbatch.viewer.words import name_of, person

P = ParamSpec("P")
T = TypeVar("T")
STATIC = Path(__file__).parent / "static"
TEMPLATES = Loader(str(Path(__file__).parent / "templates"))
STATUS = {NotThere: 404, TooSlow: 503, DatabaseAway: 503}
"""Of errors; any other that a user can act on is 400."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self' 'unsafe-inline'; img-src 'self'; "
    "script-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "ecgbatch",
}
"""Nothing from elsewhere, no frame around it, and nothing of patients in the browser's cache."""


class Handler(RequestHandler):
    """A page. `answer` shows it, `take` does something with what was sent; both may raise EcgbatchError."""

    async def answer(self, *arguments: str) -> None:
        self.refuse(404, "there is no such page")

    async def take(self, *arguments: str) -> None:
        self.refuse(405, "this page takes nothing")

    async def get(self, *arguments: str) -> None:
        await self._or_refuse(self.answer, *arguments)

    async def post(self, *arguments: str) -> None:
        await self._or_refuse(self.take, *arguments)

    @property
    def source(self) -> Source:
        found: Source = self.settings["source"]
        return found

    async def read(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Does something with the database or with files, beside what else the app does."""
        return await self._run("readers", partial(work, *args, **kwargs))

    async def score(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Does something with a resident model, one thing after the other."""
        return await self._run("scoring", partial(work, *args, **kwargs))

    def show(self, template: str, title: str, **values: Any) -> None:
        """Sends a page."""
        words: dict[str, Any] = {
            "name_of": name_of,
            "meaning_of": meaning_of,
            "as_shown": as_shown,
            "person": person,
            "duration": duration,
            "grid": inline.GRID,
        }
        words["breakable"] = breakable
        about = {"title": title, "version": version("ecgbatch"), "path": self.request.path}
        self.finish(TEMPLATES.load(template).generate(**words, **about, **values))

    def refuse(self, status: int, why: str) -> None:
        """Sends a page that says in one line what is wrong."""
        self.set_status(status)
        self.show("error.html", "This did not work", why=why)

    def prepare(self) -> None:
        refusal = self.settings["gate"].refusal(self.request)
        if refusal is None:
            return
        if refusal[0] == 401:
            self.set_header("WWW-Authenticate", 'Basic realm="ecgbatch", charset="UTF-8"')
        self.refuse(*refusal)

    def set_default_headers(self) -> None:
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        fault = "the app has a fault: where it was started, it says more"
        self.refuse(status_code, fault if status_code == 500 else self._reason)

    async def _run(self, where: str, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.settings[where], work)

    async def _or_refuse(self, work: Callable[..., Any], *arguments: str) -> None:
        try:
            await work(*arguments)
        except EcgbatchError as error:
            self.refuse(STATUS.get(type(error), 400), str(error))


def breakable(path: str) -> str:
    """A path as HTML that may go on in the next line after each of its folders."""
    return escape(path).replace("/", "/<wbr>")


class Part(Handler):
    """What all pages have in common: the style sheets as one, the script that brings pages up to date, the icon."""

    parts: ClassVar = {
        "app.css": ("text/css", pages.STYLE + inline.STYLE + (STATIC / "app.css").read_text()),
        "app.js": ("text/javascript", (STATIC / "app.js").read_text()),
        "icon.svg": ("image/svg+xml", (STATIC / "icon.svg").read_text()),
    }

    async def answer(self, *arguments: str) -> None:
        kind, content = self.parts[arguments[0]]
        self.set_header("Content-Type", f"{kind}; charset=utf-8")
        self.set_header("Cache-Control", "no-cache")
        self.finish(content)
