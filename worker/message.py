"""What a message says: which chunk of which database is to be scored."""

from dataclasses import dataclass

TASK = "ecgbatch.score"


@dataclass(frozen=True)
class ChunkMessage:
    """The identity of the database, the job and the number of the chunk in it. All else is read from SQL."""

    database: str
    job_id: int
    number: int

    def is_valid(self) -> bool:
        """Whether the values are of the kinds and sizes that databases take."""
        numbers = type(self.job_id) is int and type(self.number) is int
        return isinstance(self.database, str) and numbers and 0 < self.job_id < 2**63 and 0 < self.number < 2**31
