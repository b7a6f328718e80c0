"""Scores archives of twelve-lead ECG recordings with a parallel xLSTM, in the background.

For research use only, never for diagnosis.

    >>> import ecgbatch
    >>> scorer = ecgbatch.load_model()
    >>> [score] = ecgbatch.score(scorer, ["00001_lr.hea"])
    >>> score.probabilities["mi"]
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecgbatch.api import load_model, open_database, read, run, score
    from ecgbatch.db.engine import Database
    from ecgbatch.models.score_files import Score, score_signals
    from ecgbatch.models.scorer import Scorer
    from ecgbatch.records.recording import RecordError, Recording
    from ecgbatch.settings import EcgbatchError, Settings

__all__ = [
    "Database",
    "EcgbatchError",
    "RecordError",
    "Recording",
    "Score",
    "Scorer",
    "Settings",
    "load_model",
    "open_database",
    "read",
    "run",
    "score",
    "score_signals",
]

_PLACES = {
    "Database": "ecgbatch.db.engine",
    "EcgbatchError": "ecgbatch.settings",
    "RecordError": "ecgbatch.records.recording",
    "Recording": "ecgbatch.records.recording",
    "Score": "ecgbatch.models.score_files",
    "Scorer": "ecgbatch.models.scorer",
    "Settings": "ecgbatch.settings",
    "score_signals": "ecgbatch.models.score_files",
}
"""Where a name is found when it is first asked for, if not in ecgbatch.api: importing ecgbatch imports no more."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'ecgbatch' has no attribute {name!r}")
    found = getattr(import_module(_PLACES.get(name, "ecgbatch.api")), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
