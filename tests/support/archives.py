"""Archives made from others."""

from pathlib import Path


def multiply(archive: Path, times: int) -> None:
    """Gives each record of an archive so many headers, each a record of its own, over the same signal files."""
    names = (archive / "RECORDS").read_text().split()
    for name in names:
        first, *lines = (archive / f"{name}.hea").read_text().splitlines(keepends=True)
        for n in range(1, times):
            (archive / f"{name}x{n}.hea").write_text("".join([first.replace(name, f"{name}x{n}", 1), *lines]))
    more = [f"{name}x{n}" if n else name for n in range(times) for name in names]
    (archive / "RECORDS").write_text("\n".join(more) + "\n")
