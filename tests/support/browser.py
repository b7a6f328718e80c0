"""A headless Chromium that is told what to do by its DevTools protocol, over Tornado's websocket."""

import asyncio
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from commands import PATIENCE
from tornado.httpclient import AsyncHTTPClient
from tornado.websocket import WebSocketClientConnection, websocket_connect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page:
    """One page, as wide as it is told to be."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: WebSocketClientConnection) -> None:
        self._loop, self._socket = loop, socket
        self._numbers = itertools.count(1)
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "DOM", "Log"):
            self.tell(f"{domain}.enable")

    def tell(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command and returns its result; what happens meanwhile is kept in `events`."""
        number = next(self._numbers)
        message = json.dumps({"id": number, "method": method, "params": parameters})
        self._loop.run_until_complete(_write(self._socket, message))
        while (answer := self._next()).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return dict(answer["result"])

    def open(self, url: str) -> None:
        self._and_load(lambda: self.tell("Page.navigate", url=url))

    def click(self, selector: str) -> None:
        """Clicks what leads to another page, and waits for it."""
        self._and_load(lambda: self.ask(f"document.querySelector({json.dumps(selector)}).click()"))

    def fill(self, selector: str, value: str) -> None:
        self.ask(f"document.querySelector({json.dumps(selector)}).value = {json.dumps(value)}")

    def choose_files(self, selector: str, *files: Path) -> None:
        """What dropping the files there does."""
        root = self.tell("DOM.getDocument")["root"]["nodeId"]
        node = self.tell("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.tell("DOM.setFileInputFiles", nodeId=node, files=[str(file.resolve()) for file in files])

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.tell("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def text(self) -> str:
        return str(self.ask("document.body.innerText"))

    def look(self, width: int, height: int = 900, dark: bool = False, scale: float = 1) -> None:
        """The window's size in pixels, and whether it is night."""
        self.tell(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.tell("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, kind: str = "png", whole: bool = False, **more: Any) -> bytes:
        """What is to be seen of the page, or all of it."""
        answer = self.tell("Page.captureScreenshot", format=kind, captureBeyondViewport=whole, **more)
        return b64decode(answer["data"])

    def problems(self) -> list[str]:
        """What the browser has complained of: errors of scripts, what the page's policy forbids, what was not there."""
        logged = [event["params"]["entry"]["text"] for event in self.events if event["method"] == "Log.entryAdded"]
        thrown = [str(event["params"]) for event in self.events if event["method"] == "Runtime.exceptionThrown"]
        return logged + thrown

    def _and_load(self, act: Callable[[], object]) -> None:
        before = sum(event["method"] == "Page.loadEventFired" for event in self.events)
        act()
        while sum(event["method"] == "Page.loadEventFired" for event in self.events) <= before:
            self.events.append(self._next())

    def _next(self) -> dict[str, Any]:
        message = self._loop.run_until_complete(asyncio.wait_for(_read(self._socket), PATIENCE))
        assert message is not None, "the browser has ended"
        found: dict[str, Any] = json.loads(message)
        return found


async def _write(socket: WebSocketClientConnection, message: str) -> None:
    await socket.write_message(message)


async def _read(socket: WebSocketClientConnection) -> str | bytes | None:
    return await socket.read_message()


@contextmanager
def browser() -> Iterator[Page]:
    """A page in a Chromium of its own, which sees no network but this machine."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as folder:
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        options += ["--disable-background-networking", "--disable-extensions", "--disable-component-update"]
        options += ["--hide-scrollbars", f"--user-data-dir={folder}", "--remote-debugging-port=0", "about:blank"]
        process = subprocess.Popen([CHROMIUM, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        loop = asyncio.new_event_loop()
        try:
            socket = loop.run_until_complete(_connected(_port(process, Path(folder))))
            yield Page(loop, socket)
            socket.close()
        finally:
            process.terminate()
            process.wait(PATIENCE)
            loop.close()


def _port(process: "subprocess.Popen[bytes]", folder: Path) -> int:
    """Where it listens, which it writes into its folder."""
    give_up = time.monotonic() + PATIENCE
    file = folder / "DevToolsActivePort"
    while not (file.is_file() and "\n" in (text := file.read_text())):
        assert time.monotonic() < give_up and process.poll() is None, "Chromium does not start"
        time.sleep(0.05)
    return int(text.splitlines()[0])


async def _connected(port: int) -> WebSocketClientConnection:
    answer = await AsyncHTTPClient().fetch(f"http://127.0.0.1:{port}/json/list")
    page = next(each for each in json.loads(answer.body) if each["type"] == "page")
    return await websocket_connect(page["webSocketDebuggerUrl"], max_message_size=64 << 20)
