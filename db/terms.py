"""The words of jobs and chunks, as SQL keeps them: their states, and what may be asked of a job."""

from dataclasses import dataclass
from enum import StrEnum


class JobState(StrEnum):
    """A job is `enqueueing` until all its records are in SQL, and `finished` when each has its end."""

    ENQUEUEING = "enqueueing"
    RUNNING = "running"
    FINISHED = "finished"
    CANCELLED = "cancelled"


class ChunkState(StrEnum):
    """A chunk is `pending` in SQL alone, `queued` in Redis, `running` under a lease, then `done`."""

    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"


class Priority(StrEnum):
    """Jobs of high priority go ahead of all others: workers look into the queues in this order."""

    HIGH = "high"
    NORMAL = "normal"


class Windows(StrEnum):
    """What a job scores of a record longer than ten seconds: the `first` ten, or `all` of it, window by window."""

    FIRST = "first"
    ALL = "all"


class LeadsMissing(StrEnum):
    """What becomes of a record with fewer than twelve leads: a failure, or scored where the model takes its leads."""

    REFUSE = "refuse"
    SCORE = "score"


class Rescore(StrEnum):
    """Which records a job scores again that its model has scored before."""

    NONE = "none"
    CHANGED = "changed"
    ALL = "all"


@dataclass(frozen=True)
class JobOptions:
    """What may be asked of a job. All but `rescore` and `priority` say how records are scored: its way."""

    priority: Priority = Priority.NORMAL
    rescore: Rescore = Rescore.NONE
    windows: Windows = Windows.FIRST
    leads_missing: LeadsMissing = LeadsMissing.REFUSE
    embeddings: bool = False
