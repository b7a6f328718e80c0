"""What a search of an archive needs everywhere: where, how, and what it passes over."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ecgbatch.records.archives.lines import TextFile
from ecgbatch.records.files import Files
from ecgbatch.records.formats.wfdb_header import split
from ecgbatch.records.places import Place, place_at
from ecgbatch.records.recording import RecordError
from ecgbatch.records.remote import url_of

HEAD_BYTES = 4096
UNREADABLE_FOLDER = "folders that cannot be read"
UNREADABLE_FILE = "files that cannot be read"
OPEN_DATABASE = "files of databases in use"
UNREADABLE_LIST = "RECORDS files that cannot be read"
LINK_OUT = "links that lead out of the archive (ECGBATCH_FOLLOW_LINKS=true follows them)"
_MOST_KINDS = 100


class PassedOver:
    """What a search did not take, by kind: how many, and the first as an example."""

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[int, str]] = {}

    def add(self, kind: str, path: str) -> None:
        """Counts one; kinds beyond the first hundred are counted together."""
        if kind not in self._kinds and len(self._kinds) >= _MOST_KINDS:
            kind = "others"
        count, example = self._kinds.get(kind, (0, path))
        self._kinds[kind] = (count + 1, example)

    def __iter__(self) -> Iterator[tuple[str, int, str]]:
        """Kind, how many, an example."""
        return ((kind, count, example) for kind, (count, example) in self._kinds.items())

    def __bool__(self) -> bool:
        return bool(self._kinds)


@dataclass(frozen=True)
class Search:
    """A search for records in the archive at `root`, out of which links lead only with `follow_links`."""

    root: Path
    follow_links: bool = False
    passed_over: PassedOver = field(default_factory=PassedOver)
    place: Place = field(init=False)
    files: Files = field(init=False)
    own_files: Files = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "place", place_at(self.root, self.follow_links))
        object.__setattr__(self, "files", Files(self.root, self.follow_links))
        object.__setattr__(self, "own_files", Files(self.root, follow_links=True))

    def file_of(self, path: str) -> str | None:
        """The file at this path, or else the header for it; None where there is neither. A link to nothing is one."""
        return next((file for file in (f"{path}.hea", path) if self.place.exists(file)), None)

    def text(self, path: str) -> TextFile:
        """A list that is in the archive."""
        return TextFile(f"{url_of(self.root) or self.root}/{path}", lambda: self.place.open(path)[0])

    def header(self, path: str, in_place: bool = False) -> tuple[list[str], list[str]]:
        """The first lines and comments of a record's header, none where there is none; reading it will tell why.

        `in_place`: no link is on the way to it, so that it need not be asked where it leads.
        """
        try:
            return split((self.own_files if in_place else self.files).head(f"{path}.hea", HEAD_BYTES))
        except (RecordError, ValueError):
            return [], []
