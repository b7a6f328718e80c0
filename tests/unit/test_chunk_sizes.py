"""How many records the chunks of a job have."""

import pytest

from ecgbatch.db.jobs import chunk_sizes


@pytest.mark.parametrize("records", [1, 7, 8, 64, 411, 2193, 4096])
def test_chunks_get_smaller_at_the_end(records: int) -> None:
    sizes = chunk_sizes(records, 137, 8)
    assert sum(sizes) == records
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] <= 137
    assert all(8 <= size <= max(8, sum(sizes[n:]) // 3) for n, size in enumerate(sizes[:-1]))


def test_all_but_the_last_are_alike_without_a_smallest_size() -> None:
    assert chunk_sizes(10, 4, 4) == [4, 4, 2]
