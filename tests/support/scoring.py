"""Does with a chunk by hand what a worker does: takes it, and makes up what its records come to."""

from datetime import timedelta

from ecgbatch.db import chunks
from ecgbatch.db.chunks import WaitingChunk
from ecgbatch.db.engine import Database
from ecgbatch.db.schema import Priority

LEASE = timedelta(seconds=30)


def take(database: Database, room: int = 1000) -> list[WaitingChunk]:
    return database.write(chunks.take_pending, Priority.NORMAL, room)


def prediction(recording_id: int) -> dict[str, object]:
    probabilities = dict(norm=0.9, mi=0.1, sttc=0.2, cd=0.3, hyp=0.4)
    return dict(recording_id=recording_id, input_sha256="00", flags="", **probabilities)


def failure(recording_id: int) -> dict[str, object]:
    return dict(recording_id=recording_id, stage="read", reason="truncated", detail="too short", attempts=1)
