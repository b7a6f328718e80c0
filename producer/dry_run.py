"""`--dry-run`: says what an archive holds, and touches nothing."""

from ecgbatch.printing import print_mapping
from ecgbatch.producer.progress import ProgressLine
from ecgbatch.records.archives.finding import Archive
from ecgbatch.records.archives.overview import Kind, Overview, look_into

_MOST_LINES = 30


def show(archive: Archive) -> None:
    """Prints what was found and what was passed over. Raises EcgbatchError as `Archive.records`."""
    line = ProgressLine()
    try:
        overview = look_into(archive, lambda n: line.show("found", [f"{n:,} records"]))
    finally:
        line.close()
    found = {
        "archive": archive.root,
        "records from": archive.source(),
        "records": f"{overview.records:,}",
        "with age": f"{overview.with_age:,}",
        "with sex": f"{overview.with_sex:,}",
        "looked into": _share(overview),
    }
    for kind, count in overview.kinds.most_common(_MOST_LINES):
        found[_words(kind)] = f"{count:,}"
    passed_over = list(archive.passed_over)
    for what, count, example in passed_over[:_MOST_LINES]:
        found[f"passed over: {what}"] = f"{count:,}, as {example}"
    print_mapping(found)


def _share(overview: Overview) -> str:
    if overview.looked_into == overview.records:
        return "all of them"
    return f"{overview.looked_into:,}, a sample: the numbers below are of these"


def _words(kind: Kind) -> str:
    if kind.reason:
        return f"  {kind.format}: {kind.reason}"
    parts = [kind.format]
    parts += [f"{kind.rate:g} Hz"] if kind.rate else []
    parts += [f"{kind.seconds} s"] if kind.seconds is not None else []
    return "  " + ", ".join(parts)
