"""Starts the app, and decides who may ask it for what."""

import asyncio
import hmac
import ipaddress
import signal
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.netutil import bind_sockets

from ecgbatch.printing import say
from ecgbatch.settings import EcgbatchError, Settings

USER = "ecgbatch"
LARGEST_BODY = 1 << 30
"""Bytes of a request that are listened to; what is kept of an upload is less."""
READERS = 4
"""Threads that read the database and records."""


class Gate:
    """Whom the app answers: on this machine alone whoever asks for it by this machine's name, else a password."""

    def __init__(self, settings: Settings) -> None:
        self.password = settings.app_password
        if self.password is None and not is_loopback(settings.app_address):
            raise EcgbatchError(
                f"on {settings.app_address} others reach the app: set ECGBATCH_APP_PASSWORD_FILE or "
                "ECGBATCH_APP_PASSWORD, or leave ECGBATCH_APP_ADDRESS at 127.0.0.1"
            )

    def refusal(self, request: HTTPServerRequest) -> tuple[int, str] | None:
        """The status and words with which a request is refused, None if it is not.

        Without a password the name that was asked for must be this machine's: a page from elsewhere can point a name
        of its own at 127.0.0.1, and would otherwise read what the app shows. What is sent must come from a page of
        the app's own.
        """
        if self.password is not None and not self._knows_password(request):
            return 401, "a password is needed"
        if self.password is None and not is_loopback(request.host_name):
            return 403, f"this is not {request.host_name}: ask for 127.0.0.1 or localhost"
        origin = request.headers.get("Origin")
        if request.method == "POST" and origin is not None and origin.partition("://")[2] != request.host:
            return 403, "this was sent by a page from elsewhere"
        return None

    def _knows_password(self, request: HTTPServerRequest) -> bool:
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        wanted = f"{USER}:{self.password}".encode()
        try:
            known = hmac.compare_digest(b64decode(given, validate=True), wanted)
        except ValueError:
            return False
        return known and kind.lower() == "basic"


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own, which nobody else reaches."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def run_app(settings: Settings) -> None:
    """Serves the app until it is told to end. Raises EcgbatchError where it cannot listen, or must not."""
    asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    from ecgbatch.viewer.app.routes import application
    from ecgbatch.viewer.app.source import Source

    gate = Gate(settings)
    try:
        sockets = bind_sockets(settings.app_port, settings.app_address)
    except OSError as error:
        raise EcgbatchError(
            f"cannot listen on {settings.app_address}:{settings.app_port} ({error.strerror or error}); "
            "set ECGBATCH_APP_ADDRESS and ECGBATCH_APP_PORT"
        ) from None
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    with ThreadPoolExecutor(READERS) as readers, ThreadPoolExecutor(1) as scoring:
        source = Source(settings)
        scoring.submit(source.warm_up)
        pages = application(gate=gate, source=source, readers=readers, scoring=scoring)
        server = HTTPServer(pages, max_body_size=LARGEST_BODY)
        server.add_sockets(sockets)
        address = f"[{settings.app_address}]" if ":" in settings.app_address else settings.app_address
        password = "" if gate.password is None else f" user {USER}, the password that is set"
        say(f"the app: http://{address}:{settings.app_port}{password}")
        await ended.wait()
        server.stop()
