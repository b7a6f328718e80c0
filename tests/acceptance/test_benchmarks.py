"""Every benchmark runs, at a tiny size, and gives what docs/performance.md shows; how fast is not tested."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Command
from places import REPOSITORY

from ecgbatch.models import bench, suggestion
from ecgbatch.models.config import NetworkConfig
from ecgbatch.models.suggestion import Suggestion
from ecgbatch.models.weights.registry import SHIPPED, Registry

TINY = {
    "end_to_end": ("--records", "8", "--repeats", "1"),
    "against_published": ("--records", "8", "--published", "1", "--torch", "2", "--repeats", "1"),
    "queue_and_database": ("--records", "300", "--repeats", "1"),
    "queries": ("--records", "600", "--repeats", "1"),
    "browse": ("--records", "300", "--repeats", "1"),
    "growth": ("--sizes", "10", "300"),
    "processes": ("--records", "4", "--processes", "1", "--repeats", "1"),
    "exported": ("--records", "8", "--repeats", "1"),
    "formats": ("--records", "4", "--repeats", "1"),
    "ray_data": ("--records", "4", "--repeats", "1"),
    "reading": ("--records", "4", "--repeats", "1"),
    "twins": (),
    "gpu": ("--device", "cpu", "--batches", "2", "--records", "2", "--repeats", "1"),
    "flags": (),
}
ELSEWHERE = {"fuzz"}
"""Tried by a test of its own below."""
WORKERS = {"no_model"}
"""What benchmarks start."""


def run(name: str, *arguments: str) -> dict[str, Any]:
    """The JSON that a benchmark prints as its last line."""
    command = [sys.executable, str(REPOSITORY / "benchmarks" / f"{name}.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_every_benchmark_is_tried_here() -> None:
    scripts = {path.stem for path in (REPOSITORY / "benchmarks").glob("*.py") if "__main__" in path.read_text()}
    assert scripts == {*TINY, *ELSEWHERE, *WORKERS}


LONG = {"against_published", "exported", "formats", "queue_and_database"}
"""Benchmarks that take ten seconds or more even when they are tiny."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.chaos if name in LONG else ()) for name in TINY])
def test_benchmarks_give_a_table_and_json(name: str) -> None:
    result = run(name, *TINY[name])
    assert result["benchmark"] == name
    if "skipped" in result:
        assert name == "ray_data"
        return
    assert result["machine"]["cores"] >= 1
    assert result.get("worker_memory_mb", 1) > 0
    assert result["rows"]
    for row in result["rows"]:
        assert row.keys() == result["rows"][0].keys()
        assert all(value >= 0 for value in row.values() if isinstance(value, (int, float)))


def test_damaged_records_are_refused_or_read_alike() -> None:
    command = [sys.executable, str(REPOSITORY / "benchmarks/fuzz.py"), "--inputs", "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "wrong" not in done.stdout


def test_model_bench_suggests_and_keeps_it(command: Command) -> None:
    result = json.loads(command("model", "bench", "--json", here=True).stdout)
    assert {"cpu torch"} <= set(result["suggested"])
    assert {"device", "kernel", "batch_size", "clean_ms", "score_ms", "records_per_second", "matrix_share"} == set(
        result["measurements"][0]
    )
    assert all(0 < each["matrix_share"] < 1 for each in result["measurements"] if each["device"] == "cpu")
    assert all(suggested["batch_size"] >= 8 for suggested in result["suggested"].values())
    assert Path(result["kept_in"]).is_file()
    model_dir = Path(command.environment["ECGBATCH_MODEL_DIR"])
    kept = suggestion.find(model_dir, result["fingerprint"], "cpu", "torch")
    assert kept == Suggestion(**result["suggested"]["cpu torch"])
    assert suggestion.find(model_dir, "another model", "cpu", "torch") is None
    assert suggestion.find(model_dir, result["fingerprint"], "cuda", "torch") is None
    assert len(Registry(model_dir).available()) == len(Registry(SHIPPED).available()), "what is kept is no model"


def test_a_broken_suggestion_is_none(tmp_path: Path) -> None:
    assert suggestion.find(tmp_path, "f", "cpu", "torch") is None
    path = suggestion.keep(tmp_path, "f", {"cpu torch": Suggestion(2, 32)})
    assert suggestion.find(tmp_path, "f", "cpu", "torch") == Suggestion(2, 32)
    path.write_text("[]")
    assert suggestion.find(tmp_path, "f", "cpu", "torch") is None


def test_operations_are_those_of_the_published_network() -> None:
    """About 1.01 GFLOP a record; twice the blocks are nearly twice the work, and width counts."""
    published = bench.operations(NetworkConfig())
    assert published == pytest.approx(1.0e9, rel=0.02)
    assert bench.operations(NetworkConfig("hierarchical")) == published
    assert bench.operations(NetworkConfig(blocks=4)) == pytest.approx(2 * published, rel=0.01)
    assert bench.operations(NetworkConfig(embedding_dim=64)) < published / 2


def test_the_published_way_gives_the_same_probabilities(tmp_path: Path) -> None:
    sys.path.insert(0, str(REPOSITORY / "benchmarks"))
    try:
        from published import PublishedNetwork, read_and_clean
    finally:
        sys.path.pop(0)
    from ecgbatch.models.scorer import Scorer
    from ecgbatch.records.reading import read
    from ecgbatch.records.synthetic import write_archive

    write_archive(tmp_path)
    model = Registry(SHIPPED).find("xlstm-ecg:1.0.0")
    record = next(path.stem for path in sorted(tmp_path.glob("*.hea")) if " 100 " in path.read_text().splitlines()[0])
    scorer = Scorer(model, "cpu", "torch")
    cleaned, _ = scorer.clean(read(tmp_path, record).signal[None])
    signal = read_and_clean(tmp_path / record, model.normalization.mean, model.normalization.std)
    np.testing.assert_allclose(signal[None], cleaned, atol=1e-6)
    metadata = np.array([[60.0, 1.0]], np.float32)
    network = PublishedNetwork(model.weights(), model.config.heads)
    np.testing.assert_allclose(network(signal[None], metadata), scorer.score(cleaned, metadata), atol=1e-5)
