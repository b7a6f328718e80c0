"""Models on disk and resident: adding, finding, fingerprints, the scorer, and the commands about them."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import golden
import numpy as np
import pytest
import reference
from commands import Command
from safetensors.numpy import load_file, save_file

from ecgbatch.models.config import LABELS, NetworkConfig
from ecgbatch.models.kernels import compiled
from ecgbatch.models.kernels.compiled import parameter_shapes
from ecgbatch.models.preprocessing import MetadataFill, Normalization
from ecgbatch.models.scorer import Scorer, choose_kernel
from ecgbatch.models.weights.model import Model, fingerprint_of
from ecgbatch.models.weights.registry import Registry
from ecgbatch.records.leads import LEAD_SETS
from ecgbatch.settings import EcgbatchError

SMALL = NetworkConfig("stacked", 64, 4, 1)
KERNELS = ["torch", *(["compiled"] if compiled.available() else [])]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """The models that ship, and a folder that is not there yet."""
    return Registry(tmp_path / "models")


@pytest.fixture
def weights() -> golden.Weights:
    return golden.golden_weights(SMALL)


def add(registry: Registry, weights: golden.Weights, version: str = "1", name: str = "mine", **more: Any) -> Model:
    return registry.add(name, version, SMALL, weights, Normalization(0.0, 0.2), **more)


def test_what_ships_is_there_and_fits_together(registry: Registry) -> None:
    models = registry.available()
    assert [str(model) for model in models] == [
        "xlstm-ecg:1.0.0", "xlstm-ecg:1.1.0", "xlstm-ecg-leads:1.0.0", "xlstm-ecg:1.1.1", "xlstm-ecg:1.2.0",
        "xlstm-ecg:1.3.0",
    ]  # fmt: skip
    published, *_, default = models
    assert registry.find(None) == default
    assert published.config == NetworkConfig("stacked", 128)
    assert set(registry.find("xlstm-ecg-leads").lead_sets) == set(LEAD_SETS)
    for model in models:
        weights = model.weights()
        assert {key: value.shape for key, value in weights.items()} == dict(parameter_shapes(model.config))
        assert sum(value.size for value in weights.values()) <= 1_000_000
        assert model.thresholds != dict.fromkeys(LABELS, 0.5), "they were chosen"


def test_a_model_comes_back_as_it_went_in(registry: Registry, weights: golden.Weights) -> None:
    added = add(registry, weights, metadata_fill=MetadataFill(50.0, 0.5), thresholds=dict.fromkeys(LABELS, 0.3))
    for found in (registry.find("mine:1"), registry.find("mine"), registry.by_fingerprint(added.fingerprint)):
        assert found == added
        assert found.config == SMALL
        assert found.normalization == Normalization(0.0, 0.2)
        assert found.metadata_fill == MetadataFill(50.0, 0.5)
        assert found.thresholds["mi"] == 0.3
        np.testing.assert_equal(found.weights(), weights)


def test_the_newest_of_a_name_is_meant_by_it(registry: Registry, weights: golden.Weights) -> None:
    first, second = add(registry, weights, "2"), add(registry, weights, "1.9")
    assert registry.find("mine") == second
    assert registry.find("mine:2") == first


def test_a_pair_of_name_and_version_stays_what_it_is(registry: Registry, weights: golden.Weights) -> None:
    first = add(registry, weights)
    before = {path: path.stat().st_mtime_ns for path in registry.folder.iterdir()}
    assert add(registry, weights) == first
    weights["embedding.bias"] = weights["embedding.bias"] + 1
    with pytest.raises(EcgbatchError, match="mine:1"):
        add(registry, weights)
    with pytest.raises(EcgbatchError, match=r"xlstm-ecg:1\.0\.0"):
        add(registry, weights, "1.0.0", "xlstm-ecg")
    assert {path: path.stat().st_mtime_ns for path in registry.folder.iterdir()} == before


def test_the_fingerprint_covers_all_that_the_probabilities_depend_on(
    registry: Registry, weights: golden.Weights
) -> None:
    description = add(registry, weights).description
    changed = [
        description | {"config": replace(SMALL, heads=2).as_dict()},
        description | {"normalization": {"mean": 0.0, "std": 0.21}},
        description | {"labels": ["mi", "norm", "sttc", "cd", "hyp"]},
        description | {"metadata_fill": {"age": 59.0, "sex": 0.5}},
        description | {"preprocessing": description["preprocessing"] | {"sampling_rate": 500}},
    ]
    fingerprints = {fingerprint_of(one, weights) for one in [description, *changed]}
    moved = weights | {"embedding.bias": np.nextafter(weights["embedding.bias"], np.float32(9))}
    renamed = {key.replace("embedding.bias", "embedding.bios"): value for key, value in weights.items()}
    reshaped = weights | {"embedding.bias": weights["embedding.bias"].reshape(1, -1)}
    fingerprints |= {fingerprint_of(description, other) for other in (moved, renamed, reshaped)}
    assert len(fingerprints) == 9
    unimportant = description | {"name": "other", "version": "9", "created_at": "", "thresholds": {}}
    reordered = dict(reversed(weights.items()))
    assert fingerprint_of(unimportant, reordered) == description["fingerprint"]


def test_tampered_files_are_not_used(registry: Registry, weights: golden.Weights) -> None:
    model = add(registry, weights)
    tampered = load_file(model.weights_path)
    tampered["embedding.bias"] += np.float32(1e-6)
    save_file(tampered, model.weights_path)
    with pytest.raises(EcgbatchError, match="changed"):
        model.weights()
    for content in (b"", b"no safetensors", model.weights_path.read_bytes()[:1000]):
        model.weights_path.write_bytes(content)
        with pytest.raises(EcgbatchError, match="cannot read"):
            model.weights()
    model.weights_path.unlink()
    with pytest.raises(EcgbatchError, match="cannot read"):
        Scorer(model)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"name": 1}',
        "not json",
        "[" * 100_000,
        '{"a":' * 100_000,
        "1" * 10_000,
        '{"name": NaN}',
        "\udcff",
        " " * 2**21 + "{}",
    ],
    ids=range(11),
)
def test_a_broken_description_is_named(registry: Registry, content: str) -> None:
    registry.folder.mkdir()
    (registry.folder / "a-1.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    said = refusal(registry)
    assert "a-1.json" in said


def refusal(registry: Registry) -> str:
    """The one line that is said of a registry with a broken model."""
    with pytest.raises(EcgbatchError) as error:
        registry.available()
    said = str(error.value)
    assert "\n" not in said and len(said) < 1000
    return said


@pytest.mark.parametrize(
    "changes",
    [
        {"normalization": {"mean": 10**400, "std": 1}},
        {"normalization": {"mean": 0, "std": 0}},
        {"normalization": {"mean": 0, "std": 1e308}},
        {"normalization": {"mean": "0", "std": 1}},
        {"normalization": {"mean": True, "std": 1}},
        {"normalization": [0, 1]},
        {"normalization": {"mean": 0, "std": 1, "foo": 2}},
        {"thresholds": {"foo": 0.5}},
        {"thresholds": dict.fromkeys(LABELS, 0.5) | {"foo": 0.5}},
        {"thresholds": dict.fromkeys(LABELS, "0.5")},
        {"thresholds": dict.fromkeys(LABELS, 10**400)},
        {"thresholds": list(LABELS)},
        {"thresholds": 5},
        {"metadata_fill": {"age": 1e200, "sex": 0}},
        {"labels": "norm"},
        {"labels": [*LABELS, "afib"]},
        {"labels": [*LABELS[:4], "HYP"], "thresholds": dict.fromkeys([*LABELS[:4], "HYP"], 0.5)},
        {"labels": [*LABELS[:4], 5]},
        {"labels": [*LABELS[:4], "mi"]},
        {"labels": [*LABELS[:4], "sex"], "thresholds": dict.fromkeys([*LABELS[:4], "sex"], 0.5)},
        {"metadata_fill": None},
        {"config": {"blocks": 10**12}},
        {"config": {"embedding_dim": 10**30}},
        {"config": {"heads": 0}},
        {"config": {"variant": "stacked" * 10**5}},
        {"config": {"patch": [1]}},
        {"config": {"x" * 10**5: 1}},
        {"config": 3},
        {"labels": {}},
        {"preprocessing": []},
        {"training": 7},
        {"created_at": 3},
        {"fingerprint": None},
        {"name": "mine\nand more"},
        {"version": "x" * 10**5},
    ],
    ids=range(35),
)
def test_a_description_that_makes_no_sense_is_one_line(
    registry: Registry, weights: golden.Weights, changes: dict[str, Any]
) -> None:
    model = add(registry, weights)
    path = model.weights_path.with_suffix(".json")
    path.write_text(json.dumps(model.description | changes))
    assert "mine-1.json" in refusal(registry)
    for key in changes.keys() & {"thresholds", "labels", "name", "fingerprint"}:
        path.write_text(json.dumps({k: v for k, v in model.description.items() if k != key}))
        assert "mine-1.json" in refusal(registry)


def test_weights_of_another_network_than_described_are_not_used(registry: Registry, weights: golden.Weights) -> None:
    """Even when the fingerprint was made to fit."""
    model = add(registry, weights)
    for changed in (
        {key: value for key, value in weights.items() if key != "embedding.bias"},
        weights | {"embedding.bias": np.zeros(3, np.float32)},
        weights | {"embedding.bias": np.full_like(weights["embedding.bias"], np.nan)},
        weights | {"embedding.bias": weights["embedding.bias"].astype(np.float64)},
    ):
        save_file(changed, model.weights_path)
        description = model.description | {"fingerprint": fingerprint_of(model.description, changed)}
        with pytest.raises(EcgbatchError, match="add the model again"):
            Model(description, model.folder).weights()


def test_a_folder_and_a_pipe_instead_of_weights(registry: Registry, weights: golden.Weights) -> None:
    model = add(registry, weights)
    model.weights_path.unlink()
    os.mkfifo(model.weights_path)
    with pytest.raises(EcgbatchError, match="cannot read the weights"):
        model.weights()
    model.weights_path.unlink()
    model.weights_path.mkdir()
    with pytest.raises(EcgbatchError, match="cannot read the weights"):
        model.weights()


def test_adding_a_model_changes_nothing_and_using_it_does(registry: Registry, weights: golden.Weights) -> None:
    before = registry.find(None)
    assert before == registry.find("xlstm-ecg")
    first, second = add(registry, weights, "1"), add(registry, weights, "2")
    assert registry.find(None) == before
    assert registry.use("mine:1") == first == registry.find(None)
    assert registry.use("mine") == second == Registry(registry.folder).find(None)
    add(registry, weights, "3")
    assert registry.find(None) == second, "the version was chosen, not the newest that will ever be"
    with pytest.raises(EcgbatchError, match="there is no model other"):
        registry.use("other")
    assert registry.find(None) == second
    second.weights_path.with_suffix(".json").unlink()
    with pytest.raises(EcgbatchError, match="there is no model mine:2"):
        registry.find(None)
    (registry.folder / "default").write_bytes(b"\xff")
    with pytest.raises(EcgbatchError, match="ecgbatch model use"):
        registry.find(None)


def test_a_description_of_a_later_ecgbatch(registry: Registry, weights: golden.Weights) -> None:
    model = add(registry, weights)
    path = model.weights_path.with_suffix(".json")
    path.write_text(json.dumps(model.description | {"preprocessing": "of 2030"}))
    with pytest.raises(EcgbatchError, match="update ecgbatch"):
        registry.available()
    path.rename(path.with_name("other-1.json"))
    with pytest.raises(EcgbatchError, match="give it back its name"):
        registry.available()


@pytest.mark.parametrize(
    ("name", "version"), [("", "1"), ("../a", "1"), ("a/b", "1"), (".a", "1"), ("a", ""), ("a", "1-2")]
)
def test_names_that_are_no_file_names(registry: Registry, weights: golden.Weights, name: str, version: str) -> None:
    with pytest.raises(EcgbatchError):
        add(registry, weights, version, name)


def test_models_that_are_not_there(registry: Registry, weights: golden.Weights) -> None:
    add(registry, weights)
    for wanted in ("other", "mine:2", ":1"):
        with pytest.raises(EcgbatchError, match="mine:1"):
            registry.find(wanted)
    with pytest.raises(EcgbatchError, match="ecgbatch model add"):
        registry.by_fingerprint("0" * 64)


def test_a_folder_that_cannot_be_written(weights: golden.Weights, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EcgbatchError, match="ECGBATCH_MODEL_DIR"):
        add(Registry(tmp_path / "file/models"), weights)


ADDS = """
import os, signal, sys
from pathlib import Path
import golden
from ecgbatch.models.weights.model import Model, fingerprint_of
from ecgbatch.models.weights.registry import SHIPPED, Registry
from ecgbatch.models.config import NetworkConfig
from ecgbatch.models.preprocessing import Normalization

def watch(event, arguments):
    if event == "os.rename" and str(arguments[1]).endswith(".json"):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)
config = NetworkConfig("stacked", 64, 4, 1)
Registry(Path(sys.argv[1])).add("mine", "1", config, golden.golden_weights(config), Normalization(0.0, 0.2))
"""


def test_nothing_half_written_is_seen(registry: Registry, weights: golden.Weights) -> None:
    """Killed between the weights and the description."""
    line = [sys.executable, "-c", ADDS, str(registry.folder)]
    killed = subprocess.run(line, cwd=Path(golden.__file__).parent, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (registry.folder / "mine-1.safetensors").exists()
    assert "mine" not in [model.name for model in registry.available()]
    assert add(registry, weights) in registry.available()


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_scorer_gives_the_reference_s_probabilities(
    registry: Registry, weights: golden.Weights, kernel: str
) -> None:
    scorer = Scorer(add(registry, weights), kernel=kernel)
    assert scorer.kernel == kernel
    signals = np.random.default_rng(0).standard_normal((2, 1000, 12))
    cleaned, _ = scorer.clean(signals)
    about = [scorer.metadata(age, sex).values for age, sex in ((70, 1), (None, 0))]
    probabilities = scorer.score(cleaned, np.array(about, np.float32))
    expected = reference.probabilities(cleaned, np.array(about, np.float32), weights)
    assert np.abs(probabilities - expected).max() < golden.TOLERANCE


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_record_gets_its_own_probabilities_in_any_batch(
    registry: Registry, weights: golden.Weights, kernel: str
) -> None:
    scorer = Scorer(add(registry, weights), kernel=kernel)
    rng = np.random.default_rng(1)
    signal = rng.standard_normal((70, 100, 12)).astype(np.float32)
    metadata = rng.standard_normal((70, 2)).astype(np.float32)
    alone = np.concatenate([scorer.score(signal[i : i + 1], metadata[i : i + 1]) for i in range(70)])
    assert len(np.unique(alone.round(4), axis=0)) > 60
    for count in (0, 1, 31, 33, 70):
        together = scorer.score(signal[:count], metadata[:count])
        assert together.shape == (count, 5)
        np.testing.assert_allclose(together, alone[:count], atol=golden.TOLERANCE, rtol=0)


def test_the_choice_of_a_kernel() -> None:
    compiled_or_torch = "compiled" if compiled.available() else "torch"
    assert choose_kernel(NetworkConfig(), "cpu", "auto") == compiled_or_torch
    assert choose_kernel(NetworkConfig(), "cpu", "torch") == "torch"
    assert choose_kernel(NetworkConfig(), "cuda", "auto") == "torch"
    assert choose_kernel(NetworkConfig("stacked", 24, 4), "cpu", "auto") == "torch"  # heads too narrow for the kernel
    for device, kernel in (("cuda", "compiled"), ("cpu", "fast"), ("tpu", "auto")):
        with pytest.raises(EcgbatchError):
            choose_kernel(NetworkConfig(), device, kernel)


REGISTRY = "from ecgbatch.models.weights.registry import SHIPPED, Registry; registry = Registry(SHIPPED)"


def modules_after(code: str) -> set[str]:
    """The packages that a fresh interpreter has imported after some code."""
    code += "\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_finding_a_model_imports_neither_torch_nor_scipy() -> None:
    assert not {"torch", "scipy", "wfdb"} & modules_after(f"{REGISTRY}; registry.find(None)")
    assert "numpy" not in modules_after("import ecgbatch.models.cli")


@pytest.mark.skipif(not compiled.available(), reason="the compiled kernel is not built")
def test_scoring_by_the_compiled_kernel_imports_neither_torch_nor_scipy() -> None:
    code = f"{REGISTRY}; from ecgbatch.models.scorer import Scorer; Scorer(registry.find(None))"
    assert not {"torch", "scipy"} & modules_after(code)


def ecgbatch(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "ecgbatch", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("layout", ["cpu", "gpu"])
def test_model_add_and_list(
    command: Command, tmp_path: Path, registry: Registry, weights: golden.Weights, layout: str
) -> None:
    stored = weights if layout == "cpu" else golden.as_trained_on_gpu(weights, SMALL)
    checkpoint = golden.write_checkpoint(tmp_path / "a.ckpt", stored)
    np.savez(tmp_path / "n.npz", global_mean=0.5, global_std=2.0)
    named = ("--name", "new", "--version", "1.0")
    command("model", "add", checkpoint, "--normalization", tmp_path / "n.npz", *named)
    model = registry.find("new:1.0")
    assert model.normalization == Normalization(0.5, 2.0)
    assert model.config == SMALL
    np.testing.assert_equal(model.weights(), weights)
    rows = json.loads(command("model", "list", "--json").stdout)
    assert [f"{row['name']}:{row['version']}" for row in rows if row["default"]] == ["xlstm-ecg:1.3.0"]
    assert rows[-1]["name"] == "new"
    assert command("model", "add", checkpoint, *named, status=1).stderr.count("\n") == 1
    assert "new:1.0" in command("model", "use", "new").stdout
    starred = [line for line in command("model", "list").stdout.splitlines() if " * " in line]
    assert [line.split()[:2] for line in starred] == [["new", "1.0"]]
