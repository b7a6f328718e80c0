"""Where the app's pages get what they show: the database, the archives' files, and the models that are resident."""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from ecgbatch.db.browse import within
from ecgbatch.db.engine import Database
from ecgbatch.db.migrate import open_read_only
from ecgbatch.models.preprocessing import filtered
from ecgbatch.models.scorer import Scorer
from ecgbatch.models.weights.registry import Registry
from ecgbatch.records.leads import LEAD_SETS
from ecgbatch.records.paths import on_disk
from ecgbatch.records.reading import read
from ecgbatch.records.recording import Recording
from ecgbatch.settings import EcgbatchError, Settings
from ecgbatch.viewer.occlusion import Occlusion, occlude

LONGEST_SECONDS = 60
"""How long a page may look in the database."""
KEPT = 8
"""Uploads, and explanations, that are kept in memory."""


class Recent:
    """The last few things that were put in, by their keys."""

    def __init__(self, most: int = KEPT) -> None:
        self._most = most
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable) -> Any:
        with self._lock:
            return self._kept.get(key)

    def put(self, key: Hashable, value: Any) -> None:
        with self._lock:
            self._kept[key] = value
            self._kept.move_to_end(key)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)


@dataclass
class Source:
    """The database and the models of the settings; each is opened when it is first asked for."""

    settings: Settings
    files: Recent = field(default_factory=Recent)
    _explanations: Recent = field(default_factory=Recent)
    _scorers: dict[str, Scorer] = field(default_factory=dict)
    _database: Database | None = None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """The database, as long as it takes at most LONGEST_SECONDS. Raises EcgbatchError when there is none."""
        if self._database is None:
            self._database = open_read_only(self.settings.database_url)
        with within(self._database, LONGEST_SECONDS) as connection:
            yield connection

    def recording(self, root: str, path: str) -> Recording:
        """A record of an archive, read again, with however many leads. Raises RecordError."""
        folder = Path(on_disk(root)[0])
        settings = self.settings
        links = settings.follow_links
        return read(folder, path, min_seconds=settings.min_seconds, follow_links=links, lead_sets=LEAD_SETS)

    def warm_up(self) -> None:
        """Makes the default model resident. What is wrong with it is said when something is to be scored."""
        try:
            self.scorer()
        except EcgbatchError:
            return

    def scorer(self, fingerprint: str | None = None) -> Scorer:
        """The resident model of a fingerprint, or of the settings. Raises EcgbatchError when it is not here."""
        models = Registry(self.settings.model_dir)
        found = models.find(self.settings.model) if fingerprint is None else models.by_fingerprint(fingerprint)
        if found.fingerprint not in self._scorers:
            self._scorers[found.fingerprint] = Scorer(found, self.settings.device, self.settings.kernel)
        return self._scorers[found.fingerprint]

    def explain(self, scorer: Scorer, recording: Recording, age: float | None, sex: int | None) -> Occlusion:
        """What a score hangs on; the last few are kept, since all superclasses come out at once."""
        key = (scorer.model.fingerprint, recording.sha256, age, sex)
        found: Occlusion | None = self._explanations.get(key)
        if found is None:
            found = occlude(scorer, as_scored(recording), scorer.metadata(age, sex).values)
            self._explanations.put(key, found)
        return found


def as_scored(recording: Recording) -> NDArray[np.float64]:
    """(T, 12) mV after the filters."""
    signal: NDArray[np.float64] = filtered(recording.signal[np.newaxis])[0]
    return signal
