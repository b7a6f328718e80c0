"""What people see while a job runs: on terminals of any width, and in a pipe."""

import subprocess
import sys

import pytest
from terminal import in_terminal

from ecgbatch.db.reports import Progress
from ecgbatch.producer.progress import TOLD_AFTER, Pace, facts_of

SCRIPT = """
from ecgbatch.db.reports import Progress
from ecgbatch.producer.progress import Pace, ProgressLine, facts_of, share_of

line, pace = ProgressLine(), Pace()
for second in range(20):
    done = max(0, second - 3) * 100
    progress = Progress(1, "running", 10_000, done, 0, 3, 10_000 - done - 3, None)
    line.show("job 1", facts_of(progress, pace.update(done + 3, second)), share_of(progress))
line.close()
"""


@pytest.mark.parametrize(
    ("width", "last"), [(120, "100 records/s"), (80, "1,603 of 10,000"), (40, "left"), (20, "16%")]
)
def test_the_bar_fits_the_terminal(width: int, last: str) -> None:
    lines = in_terminal([sys.executable, "-c", SCRIPT], width)
    assert max(map(len, lines)) <= width
    assert last in lines[-1]
    assert "16%" in lines[-1]
    assert "━" in lines[-1]


def test_a_pipe_gets_a_line_now_and_then_and_a_last_one() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr == "job 1: 16%, 1 min 24 s left, 1,603 of 10,000, 3 failed, 100 records/s\n"


def test_the_time_left_is_told_once_it_can_be() -> None:
    pace = Pace()
    assert [pace.update(0, second) for second in range(40)] == [None] * 40  # the workers are starting
    told = [pace.update(50 * second, 40 + second) for second in range(1, 41)]
    untold = int(TOLD_AFTER) - 2
    assert told[:untold] == [None] * untold
    assert all(rate == pytest.approx(50, rel=0.3) for rate in told[untold + 1 :])
    assert [pace.update(2000, 81 + second) for second in range(31)][-1] is None  # nothing for half a minute


def test_a_job_that_has_ended_has_no_time_left() -> None:
    assert facts_of(Progress(1, "finished", 0, 0, 0, 0, 0, None), 5.0) == ["100%", "0 of 0"]
