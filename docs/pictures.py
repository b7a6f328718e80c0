"""Makes the README's picture: real commands in an empty folder, and what they print. `make pictures` runs it."""

import re
import subprocess
import sys
import tempfile
from io import StringIO
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

COMMANDS = ["ecgbatch run", "ecgbatch query superclasses", "ecgbatch status"]
WIDTH = 112
FONT_FACES = re.compile(r"@font-face \{\{.*?\}\}", re.DOTALL)
"""Where a browser would fetch a font; it has one of its own."""


def said(command: str, folder: Path) -> str:
    """What a command prints, standard error included, with the folder's name left out."""
    line = [sys.executable, "-m", *command.split()]
    done = subprocess.run(line, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)
    kept = [line for line in done.stdout.splitlines() if "ECGBATCH_REDIS_URL" not in line]
    return "\n".join(kept).replace(f"{folder.resolve()}/", "")


def main() -> None:
    console = Console(record=True, width=WIDTH, file=StringIO())
    with tempfile.TemporaryDirectory() as folder:
        for command in COMMANDS:
            console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
            console.print(Text(said(command, Path(folder))))
    picture = Path(__file__).parent / "run.svg"
    svg = console.export_svg(title="ecgbatch", code_format=FONT_FACES.sub("", CONSOLE_SVG_FORMAT), unique_id="ecgbatch")
    picture.write_text(svg)
    print(f"made {picture}")


if __name__ == "__main__":
    main()
