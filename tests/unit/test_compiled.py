"""The compiled kernel against the golden numbers and the network in torch, on every instruction set here."""

import importlib.util
import json
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from float32 import in_float64
from golden import TOLERANCE
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgbatch.models.config import NetworkConfig
from ecgbatch.models.kernels import compiled
from ecgbatch.settings import EcgbatchError

pytestmark = pytest.mark.skipif(
    not compiled.available(), reason="the compiled kernel is not built: needs a C++ compiler at install time"
)

VARIANTS = {
    "stacked128": NetworkConfig(),
    "stacked64": NetworkConfig(embedding_dim=64),
    "hierarchical128": NetworkConfig("hierarchical"),
}
SETS = compiled.usable_instructions()
Golden = dict[str, Any]


@cache
def golden_numbers(folder: Path) -> Golden:
    spec = importlib.util.spec_from_file_location("golden_weights", folder / "golden_weights.py")
    assert spec and spec.loader
    rule = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rule)
    shapes = json.loads((folder / "state_dict_shapes.json").read_text())
    expected = np.load(folder / "expected.npz")
    return {
        "signal": np.ascontiguousarray(expected["preprocessed"], dtype=np.float32),
        "metadata": np.ascontiguousarray(expected["metadata"], dtype=np.float32),
        "weights": {variant: rule.golden_weights(shapes[variant]) for variant in VARIANTS},
        "probabilities": {variant: expected[f"probabilities_{variant}"] for variant in VARIANTS},
    }


@pytest.fixture
def golden(shared: Path) -> Golden:
    return golden_numbers(shared / "golden")


def random_weights(config: NetworkConfig, seed: int, classes: int = 5) -> dict[str, np.ndarray]:
    """Weights of a size at which every gate works and none is saturated."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.standard_normal(shape) * (0.3 if len(shape) == 1 else shape[-1] ** -0.5)).astype(np.float32)
        for name, shape in compiled.parameter_shapes(config, classes)
    }


def random_records(batch: int, steps: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    signal = rng.standard_normal((batch, steps, 12)).astype(np.float32)
    metadata = np.stack([rng.uniform(0, 2, batch), rng.integers(0, 2, batch)], axis=1).astype(np.float32)
    return signal, metadata


@pytest.mark.parametrize("variant", ["stacked64", "hierarchical128"])
def test_features_are_those_of_torch_and_cost_no_bit_of_the_probabilities(variant: str) -> None:
    plain_torch = pytest.importorskip("ecgbatch.models.kernels.plain_torch")
    config = VARIANTS[variant]
    weights, (signal, metadata) = random_weights(config, 5), random_records(3, 250, 6)
    expected_probabilities, expected = plain_torch.TorchNetwork(weights, config).embed(signal, metadata)
    for instructions in SETS:
        network = compiled.CompiledNetwork(weights, config, instructions)
        probabilities, features = network.embed(signal, metadata)
        assert probabilities.tobytes() == network(signal, metadata).tobytes()
        assert features.shape == (3, 2 * config.embedding_dim + 32)
        np.testing.assert_allclose(features, expected, atol=2e-4)
        np.testing.assert_allclose(probabilities, expected_probabilities, atol=1e-5)


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_golden_numbers(golden: Golden, variant: str, instructions: str) -> None:
    network = compiled.CompiledNetwork(golden["weights"][variant], VARIANTS[variant], instructions)
    probabilities = network(golden["signal"], golden["metadata"])
    assert network.instructions == instructions
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, golden["probabilities"][variant], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_record_has_the_same_bits_in_every_batch(golden: Golden, variant: str, instructions: str) -> None:
    network = compiled.CompiledNetwork(golden["weights"][variant], VARIANTS[variant], instructions)
    signal, metadata = np.ascontiguousarray(golden["signal"][:, :100]), golden["metadata"]
    alone = np.concatenate([network(signal[i : i + 1], metadata[i : i + 1]) for i in range(8)])
    for batch in (2, 3, 8, 31, 256):
        order = np.random.default_rng(batch).integers(0, 8, batch)
        np.testing.assert_array_equal(network(signal[order], metadata[order]), alone[order])


def test_the_largest_batch_of_whole_records(golden: Golden) -> None:
    network = compiled.CompiledNetwork(golden["weights"]["stacked128"], VARIANTS["stacked128"])
    order = np.arange(256) % 8
    probabilities = network(golden["signal"][order], golden["metadata"][order])
    alone = np.concatenate([network(golden["signal"][i : i + 1], golden["metadata"][i : i + 1]) for i in range(8)])
    np.testing.assert_array_equal(probabilities, alone[order])


@settings(max_examples=15, deadline=None)
@given(
    variant=st.sampled_from(["stacked", "hierarchical"]),
    sizes=st.sampled_from([(16, 1), (32, 2), (48, 1), (64, 4), (80, 1), (96, 2), (96, 3), (128, 8), (160, 5)]),
    blocks=st.integers(1, 3),
    patch=st.sampled_from([1, 1, 2, 5]),
    span=st.sampled_from([0, 1, 20, 48, 97]),
    extremes=st.sampled_from([0, 1, 60, 100]),
    classes=st.sampled_from([1, 3, 5, 16, 17, 100]),
    steps=st.sampled_from([1, 2, 5, 6, 7, 47, 48, 49, 97, 150]),
    instructions=st.sampled_from(SETS or ("none",)),
    seed=st.integers(0, 2**31),
)
def test_any_sizes_are_as_near_as_float32_can_be(
    variant: str,
    sizes: tuple[int, int],
    blocks: int,
    patch: int,
    span: int,
    extremes: int,
    classes: int,
    steps: int,
    instructions: str,
    seed: int,
) -> None:
    config = NetworkConfig(variant, *sizes, blocks, patch, span, extremes)
    weights = random_weights(config, seed, classes)
    signal, metadata = random_records(2, steps * patch + seed % patch, seed)
    probabilities = compiled.CompiledNetwork(weights, config, instructions)(signal, metadata)
    in_float64(config, weights, signal, metadata).assert_given(probabilities)


@pytest.mark.parametrize("steps", [1, 7, 999, 1001, 3000])
def test_lengths_that_fill_no_tile(golden: Golden, steps: int) -> None:
    config, weights = VARIANTS["stacked64"], golden["weights"]["stacked64"]
    signal = np.ascontiguousarray(np.tile(golden["signal"][:1], (1, 3, 1))[:, :steps])
    exact = in_float64(config, weights, signal, golden["metadata"][:1])
    for name in SETS:
        exact.assert_given(compiled.CompiledNetwork(weights, config, name)(signal, golden["metadata"][:1]))


def test_a_workspace_used_for_another_length_gives_the_same_bits(golden: Golden) -> None:
    network = compiled.CompiledNetwork(golden["weights"]["stacked128"], VARIANTS["stacked128"])
    signal, metadata = golden["signal"][:1], golden["metadata"][:1]
    short = np.ascontiguousarray(signal[:, :50])
    before = network(short, metadata)
    network(signal, metadata)
    np.testing.assert_array_equal(network(short, metadata), before)


def test_threads_share_a_network(golden: Golden) -> None:
    network = compiled.CompiledNetwork(golden["weights"]["stacked128"], VARIANTS["stacked128"])
    signal, metadata = golden["signal"], golden["metadata"]
    alone = network(signal, metadata)
    with ThreadPoolExecutor(2) as pool:
        for result in pool.map(lambda _: network(signal, metadata), range(8)):
            np.testing.assert_array_equal(result, alone)


@pytest.mark.parametrize("instructions", SETS)
def test_a_broken_record_shows_and_harms_only_itself(golden: Golden, instructions: str) -> None:
    network = compiled.CompiledNetwork(golden["weights"]["stacked128"], VARIANTS["stacked128"], instructions)
    signal, metadata = golden["signal"][:3].copy(), golden["metadata"][:3]
    sound = network(signal, metadata)
    signal[1, 995, 3] = np.nan
    broken = network(signal, metadata)
    assert np.isnan(broken[1]).all()
    np.testing.assert_array_equal(broken[[0, 2]], sound[[0, 2]])
    np.testing.assert_array_equal(network(golden["signal"][:3], metadata), sound)


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e4])
def test_extreme_signals_give_probabilities(golden: Golden, scale: float, instructions: str) -> None:
    network = compiled.CompiledNetwork(golden["weights"]["stacked128"], VARIANTS["stacked128"], instructions)
    probabilities = network(golden["signal"][:1] * np.float32(scale), golden["metadata"][:1])
    assert ((probabilities >= 0) & (probabilities <= 1)).all()


@pytest.mark.parametrize("gate_bias", [-300.0, -40.0, 40.0, 300.0])
def test_extreme_gates_are_as_near_as_float32_can_be(gate_bias: float) -> None:
    config = NetworkConfig(embedding_dim=64)
    signal, metadata = random_records(1, 150, 1)
    for gates in ("slstm_cell._bias_", "mlstm_cell.igate.bias", "mlstm_cell.fgate.bias"):
        weights = random_weights(config, 1)
        for name in weights:
            if name.endswith(gates):
                weights[name] = weights[name] + np.float32(gate_bias)
        exact = in_float64(config, weights, signal, metadata)
        for instructions in SETS:
            network = compiled.CompiledNetwork(weights, config, instructions)
            exact.assert_given(network(signal, metadata), abs(gate_bias))


def test_an_empty_batch_gives_no_rows() -> None:
    config = NetworkConfig(embedding_dim=64)
    network = compiled.CompiledNetwork(random_weights(config, 0), config)
    empty = network(np.empty((0, 1000, 12), np.float32), np.empty((0, 2), np.float32))
    assert empty.shape == (0, 5)


def test_wrong_arrays_are_refused() -> None:
    config = NetworkConfig(embedding_dim=64)
    network = compiled.CompiledNetwork(random_weights(config, 0), config)
    signal, metadata = random_records(2, 20, 0)
    wrong = [
        (signal.astype(np.float64), metadata),
        (signal, metadata.astype(np.float64)),
        (signal[:, ::2], metadata),
        (signal[:, :, :11].copy(), metadata),
        (signal[0], metadata),
        (signal, metadata[:1]),
        (signal[:, :0], metadata),
    ]
    for arrays in wrong:
        with pytest.raises(EcgbatchError, match=r"^[^\n]+$"):
            network(*arrays)


def test_wrong_weights_are_refused() -> None:
    config = NetworkConfig(embedding_dim=64)
    weights = random_weights(config, 0)
    name = "classifier.6.bias"
    wrong: list[dict[str, np.ndarray]] = [
        {key: value for key, value in weights.items() if key != name},
        {**weights, name: weights[name][:4]},
        {**weights, name: weights[name].astype(np.float64)},
        {**weights, "classifier.9.bias": weights[name]},
    ]
    for case in wrong:
        with pytest.raises(EcgbatchError, match="classifier"):
            compiled.CompiledNetwork(case, config)
    with pytest.raises(EcgbatchError, match="sse9"):
        compiled.CompiledNetwork(weights, config, "sse9")


def test_unsupported_sizes_are_said_to_be_so() -> None:
    config = NetworkConfig(embedding_dim=40, heads=4)
    assert not compiled.supports(config)
    with pytest.raises(EcgbatchError, match="use torch"):
        compiled.CompiledNetwork(random_weights(config, 0), config)


def test_the_kernel_checks_what_it_is_given() -> None:
    kernel = compiled._kernel
    config = NetworkConfig(embedding_dim=64)
    layout = compiled._for_kernel(random_weights(config, 0), config)
    parameters = np.concatenate([part.astype(np.float32).ravel() for part in layout])
    sizes = (12, 64, 128, 4, 1, 2, 128, 5, 0, 0)
    network = kernel.load("baseline", *sizes, parameters)
    signal, metadata, output = (np.zeros(n, np.float32) for n in (2 * 10 * 12, 4, 10))
    no_features = np.empty(0, np.float32)
    kernel.run(network, signal, metadata, output, no_features, 2, 10)
    for batch, samples in [(2, 11), (3, 10), (-1, 10), (2, 0), (2, -10), (1, 20), (2**62, 2**62)]:
        with pytest.raises(ValueError):
            kernel.run(network, signal, metadata, output, no_features, batch, samples)
    for width in (1, 2 * 160 - 1, 2 * 160 + 1):
        with pytest.raises(ValueError):
            kernel.run(network, signal, metadata, output, np.empty(width, np.float32), 2, 10)
    with pytest.raises(ValueError):
        kernel.load("baseline", *sizes, parameters[:-1])
    with pytest.raises(ValueError):
        kernel.load("baseline", *sizes, np.append(parameters, np.float32(0)))
    with pytest.raises(ValueError):
        kernel.load("baseline", 12, 60, 128, 4, 1, 2, 128, 5, 0, 0, parameters)
    for classes, span, extremes in ((0, 0, 0), (5, -1, 0), (5, 0, -1)):
        with pytest.raises(ValueError):
            kernel.load("baseline", *sizes[:-3], classes, span, extremes, parameters)


def test_the_fastest_instructions_come_first() -> None:
    assert compiled.instructions() == SETS[0]
    assert SETS[-1] == "baseline"
    if platform.machine() == "x86_64" and Path("/proc/cpuinfo").exists():
        flags = Path("/proc/cpuinfo").read_text().split()
        assert ("avx512" in SETS) == ("avx512f" in flags and "avx512dq" in flags)
        assert ("avx2" in SETS) == ("avx2" in flags and "fma" in flags)


@pytest.mark.skipif(sys.platform != "linux", reason="limits its own address space as Linux does")
def test_too_little_memory_is_an_error_and_no_crash() -> None:
    script = """
import resource, numpy as np
from ecgbatch.models.kernels import compiled
from ecgbatch.models import preprocessing
from ecgbatch.models.config import NetworkConfig
from ecgbatch.models.preprocessing import Normalization
config = NetworkConfig(embedding_dim=64)
weights = {name: np.zeros(shape, np.float32) for name, shape in compiled.parameter_shapes(config)}
network = compiled.CompiledNetwork(weights, config)
signal, metadata = np.zeros((1, 1_000_000, 12), np.float32), np.zeros((1, 2), np.float32)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 100_000_000, resource.RLIM_INFINITY))
try:
    network(signal, metadata)
except MemoryError:
    print("MemoryError", network(signal[:, :1000].copy(), metadata).shape)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
recording = np.zeros((1, 1_000_000, 12))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 100_000_000, resource.RLIM_INFINITY))
try:
    compiled.clean(recording, Normalization())
except MemoryError:
    print("MemoryError", compiled.clean(recording[:, :1000].copy(), Normalization())[0].shape)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["MemoryError (1, 5)", "MemoryError (1, 1000, 12)"]
