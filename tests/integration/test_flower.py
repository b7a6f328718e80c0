"""Flower: who may open it, and where and how it is served."""

import subprocess
import urllib.error
import urllib.parse
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import PATIENCE, Command, free_port, running, wait_until


@pytest.fixture
def flower(tmp_path: Path, redis_url: str) -> Command:
    """The command with a Redis server, and a port for Flower."""
    return Command(tmp_path, ECGBATCH_REDIS_URL=redis_url, ECGBATCH_FLOWER_PORT=str(free_port()))


@contextmanager
def served(command: Command, path: str = "") -> Iterator[str]:
    """Flower while it runs; the URL that it is served at."""
    url = f"http://127.0.0.1:{command.environment['ECGBATCH_FLOWER_PORT']}{path}"
    with running(command.start("flower", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)):
        wait_until(lambda: status(f"{url}/healthcheck") == 200)
        yield url


def status(url: str, user: str | None = None, post: bool = False) -> int | None:
    """The HTTP status of a request, None if nobody listens."""
    request = asking(url, user)
    if post:
        request.data = b"{}"
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def text(url: str, user: str) -> str:
    """A page as it is sent."""
    with urllib.request.urlopen(asking(url, user), timeout=PATIENCE) as answer:
        return str(answer.read(), "utf-8")


def asking(url: str, user: str | None) -> urllib.request.Request:
    request = urllib.request.Request(url)
    if user is not None:
        request.add_header("Authorization", f"Basic {b64encode(user.encode()).decode()}")
    return request


def test_the_whole_password_opens_it_and_nothing_else(flower: Command) -> None:
    flower.environment["ECGBATCH_FLOWER_PASSWORD"] = "ab,cd:e'f $x"
    with served(flower) as url:
        assert status(f"{url}/api/workers", "ecgbatch:ab,cd:e'f $x") == 200
        for user in ("ecgbatch:ab", "ecgbatch:cd:e'f $x", "ab", "cd", "ecgbatch:", "ecgbatch:ab,cd", "", ":", None):
            assert status(f"{url}/api/workers", user) == 401


def test_behind_a_proxy_kept_and_read_only(flower: Command) -> None:
    flower.environment |= {
        "ECGBATCH_FLOWER_PASSWORD": "secret",
        "ECGBATCH_FLOWER_URL_PREFIX": "/ecg/flower/",
        "ECGBATCH_FLOWER_DATABASE": str(flower.folder / "seen"),
        "ECGBATCH_FLOWER_READ_ONLY": "true",
    }
    with served(flower, "/ecg/flower") as url:
        assert status(f"{url}/workers", "ecgbatch:secret") == 200
        assert '<tr id="high">' in text(f"{url}/broker", "ecgbatch:secret")
        assert status(f"{url}/api/task/async-apply/ecgbatch.score", "ecgbatch:secret", post=True) == 403
        assert status(url.removesuffix("/ecg/flower") + "/workers", "ecgbatch:secret") == 404
    assert list(flower.folder.glob("seen*"))


def test_only_a_password_that_was_made_up_is_shown(flower: Command) -> None:
    for given in ("", "hidden"):
        flower.environment["ECGBATCH_FLOWER_PASSWORD"] = given
        process = flower.start("flower", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        with running(process):
            assert process.stdout is not None
            said = process.stdout.readline()
        made_up = said.rpartition(" ")[2].strip()
        assert "user ecgbatch" in said
        assert "hidden" not in said
        assert len(made_up) == (16 if given == "" else 3), said


def test_a_password_that_flower_cannot_compare_is_one_line(flower: Command) -> None:
    flower.environment["ECGBATCH_FLOWER_PASSWORD"] = "pässword"
    assert "choose one of ASCII characters" in flower("flower", status=1).stderr
