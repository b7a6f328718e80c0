"""The network in torch against the golden numbers and against the reference in its plainest form."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import golden
import numpy as np
import pytest
import reference
import torch
from float32 import in_float64
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from ecgbatch.models.config import LABELS, NetworkConfig
from ecgbatch.models.network import CHUNK, ParallelXLSTM
from ecgbatch.records.leads import LEADS
from ecgbatch.settings import EcgbatchError

CONFIGS = st.builds(
    NetworkConfig,
    variant=st.sampled_from(["stacked", "hierarchical"]),
    embedding_dim=st.sampled_from([8, 24, 32]),
    heads=st.sampled_from([1, 2, 4]),
    blocks=st.integers(1, 3),
    span=st.sampled_from([0, 1, 7, 20]),
    extremes=st.sampled_from([0, 1, 9, 30]),
)


def records(batch: int, steps: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    signal = rng.standard_normal((batch, steps, len(LEADS))).astype(np.float32)
    metadata = np.stack([rng.uniform(18, 90, batch), rng.integers(0, 2, batch)], axis=1).astype(np.float32)
    return signal, metadata


def score(network: ParallelXLSTM, signal: np.ndarray, metadata: np.ndarray) -> np.ndarray:
    kind = network.embedding.weight.dtype
    with torch.inference_mode():
        return network(torch.from_numpy(signal).to(kind), torch.from_numpy(metadata).to(kind)).numpy()


def test_the_published_network_has_544757_parameters() -> None:
    assert sum(parameter.numel() for parameter in ParallelXLSTM(NetworkConfig()).parameters()) == 544_757


@pytest.mark.parametrize("variant", golden.CONFIGS)
def test_parameters_are_those_of_published_checkpoints(shared: Path, variant: str) -> None:
    published = json.loads((shared / "golden/state_dict_shapes.json").read_text())[variant]
    state_dict = ParallelXLSTM(golden.CONFIGS[variant]).state_dict()
    assert {key: list(value.shape) for key, value in state_dict.items()} == published
    assert {key: list(shape) for key, shape in golden.shapes(golden.CONFIGS[variant]).items()} == published


@pytest.mark.parametrize("variant", golden.CONFIGS)
def test_reference_gives_the_golden_numbers(shared: Path, variant: str) -> None:
    expected = np.load(shared / "golden/expected.npz")
    weights = {key: w.astype(np.float64) for key, w in golden.golden_weights(golden.CONFIGS[variant]).items()}
    pooled = reference.pooled(expected["preprocessed"][:2].astype(np.float64), weights, heads=4)
    np.testing.assert_allclose(pooled, expected[f"pooled_{variant}"][:2], atol=1e-9, rtol=0)
    probabilities = reference.classify(pooled, golden.METADATA[:2].astype(np.float64), weights)
    np.testing.assert_allclose(probabilities, golden.PROBABILITIES[variant][:2], atol=1e-8, rtol=0)


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("variant", "batch", "threads"),
    [(variant, 3, 1) for variant in golden.CONFIGS] + [("stacked64", 8, 2), ("stacked64", 64, 1)],
    indirect=["threads"],
)
def test_golden_numbers_in_any_batch(shared: Path, variant: str, batch: int, threads: int) -> None:
    assert torch.get_num_threads() == threads
    signal = np.load(shared / "golden/expected.npz")["preprocessed"]
    network = golden.network(golden.CONFIGS[variant], golden.golden_weights(golden.CONFIGS[variant]))
    chosen = np.arange(max(batch, len(signal))) % len(signal)
    parts = [
        score(network, signal[chosen[i : i + batch]], golden.METADATA[chosen[i : i + batch]])
        for i in range(0, len(chosen), batch)
    ]
    difference = np.abs(np.concatenate(parts) - golden.PROBABILITIES[variant][chosen]).max()
    assert difference < golden.TOLERANCE


@pytest.mark.parametrize("variant", golden.CONFIGS)
def test_float32_is_as_near_as_it_can_be(variant: str) -> None:
    config, weights = golden.CONFIGS[variant], golden.golden_weights(golden.CONFIGS[variant])
    signal, metadata = records(2, 1000, seed=7)
    exact = in_float64(config, weights, signal, metadata)
    assert exact.bound < golden.TOLERANCE
    network = golden.network(config, weights)
    together = score(network, signal, metadata)
    assert together.shape == (2, len(LABELS))
    exact.assert_given(together)
    exact.assert_given(score(network, signal[:1], metadata[:1]))


@settings(max_examples=15, deadline=None)
@given(
    config=CONFIGS,
    batch=st.integers(1, 3),
    steps=st.integers(1, 2 * CHUNK + 5),
    seed=st.integers(0, 99),
    size=st.floats(1, 8),
)
def test_float64_is_the_reference(config: NetworkConfig, batch: int, steps: int, seed: int, size: float) -> None:
    """Any sizes, any number of time steps, gates from gentle to saturated."""
    weights = {
        key: w * np.float32(size) if "gate" in key or key.endswith(("_bias_", "_kernel_")) else w
        for key, w in golden.golden_weights(config).items()
    }
    signal, metadata = records(batch, steps, seed)
    probabilities = score(golden.network(config, weights).double(), signal, metadata)
    expected = reference.probabilities(
        signal, metadata, weights, config.heads, span=config.span, extremes=config.extremes
    )
    np.testing.assert_allclose(probabilities, expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("size", [30.0, 1000.0])
def test_huge_gates_give_finite_probabilities(size: float) -> None:
    """Exponential gates far beyond what float32 can hold."""
    config = NetworkConfig("stacked", 32)
    weights = {
        key: w * np.float32(size) if "gate" in key or key.endswith("_bias_") else w
        for key, w in golden.golden_weights(config).items()
    }
    signal, metadata = records(3, 300, seed=1)
    assert np.isfinite(score(golden.network(config, weights), signal, metadata)).all()


@pytest.mark.parametrize("variant", ["stacked", "hierarchical"])
def test_gradient_is_that_of_the_reference(variant: str) -> None:
    """Along a random direction through all parameters, over more than one chunk."""
    config = NetworkConfig(variant, 16, 2, 2)
    weights = golden.golden_weights(config)
    signal, metadata = records(2, 2 * CHUNK - 1, seed=3)
    network = golden.network(config, weights).double()
    network(torch.from_numpy(signal).double(), torch.from_numpy(metadata).double()).sum().backward()

    rng = np.random.default_rng(5)
    direction = {key: rng.standard_normal(w.shape) for key, w in weights.items()}
    slope = sum(
        float((parameter.grad.numpy() * direction[key]).sum())
        for key, parameter in network.named_parameters()
        if parameter.grad is not None
    )

    def along(distance: float) -> float:
        moved = {key: w.astype(np.float64) + distance * direction[key] for key, w in weights.items()}
        pooled = reference.pooled(signal.astype(np.float64), moved, config.heads, config.span)
        return float(reference.classify(pooled, metadata.astype(np.float64), moved).sum())

    step = 1e-6
    assert slope == pytest.approx((along(step) - along(-step)) / (2 * step), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("sample", [0, 1])
def test_a_patch_is_one_step_that_sees_its_samples_in_turn(sample: int) -> None:
    """A network that heeds one sample of every two is the network of that sample alone."""
    config = NetworkConfig("stacked", 16, 2, 1)
    weights = golden.golden_weights(config)
    signal, metadata = records(3, 20, seed=1)
    of_sample = [np.zeros_like(weights["embedding.weight"]) for _ in range(2)]
    of_sample[sample] = weights["embedding.weight"]
    patched = golden.network(
        NetworkConfig("stacked", 16, 2, 1, patch=2), weights | {"embedding.weight": np.hstack(of_sample)}
    )
    of_it_alone = np.ascontiguousarray(signal[:, sample::2])
    expected = score(golden.network(config, weights).double(), of_it_alone, metadata)
    np.testing.assert_allclose(score(patched.double(), signal, metadata), expected, atol=1e-12)
    left_over = np.concatenate([signal, np.full((3, 1, 12), 1e3, np.float32)], axis=1)
    np.testing.assert_array_equal(score(patched, left_over, metadata), score(patched, signal, metadata))


def test_a_record_in_pieces_is_the_record() -> None:
    """What a layer carries from one piece to the next is all that there was."""
    config = NetworkConfig("stacked", 32, 4, 2)
    network = golden.network(config, golden.golden_weights(config)).double()
    patches = torch.from_numpy(records(2, 60, seed=2)[0]).double().transpose(0, 1)
    with torch.inference_mode():
        whole, _ = network.fused(patches)
        state, pieces = None, []
        for piece in patches.split([1, 2, 17, 40]):
            fused, state = network.fused(piece, state)
            pieces.append(fused)
    torch.testing.assert_close(torch.cat(pieces), whole, atol=1e-12, rtol=0)


def test_every_parameter_gets_a_finite_gradient() -> None:
    torch.manual_seed(0)
    network = ParallelXLSTM(NetworkConfig("stacked", 32))
    signal, metadata = records(2, 2 * CHUNK, seed=0)
    network.logits(torch.from_numpy(signal), torch.from_numpy(metadata)).square().sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key


def test_no_tensor_grows_with_the_square_of_the_time() -> None:
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            made = result if isinstance(result, (tuple, list)) else [result]
            largest = max(largest, *(tensor.numel() for tensor in made if isinstance(tensor, torch.Tensor)), 0)
            return result

    network = golden.network(NetworkConfig(), golden.golden_weights(NetworkConfig()))
    signal, metadata = records(1, 1000, seed=0)
    with Watch():
        score(network, signal, metadata)
    assert 10_000 < largest <= 128 * 512  # the largest is a weight; 1000 x 1000 would be a million


@pytest.mark.parametrize(
    "sizes",
    [
        ("sideways",),
        ("stacked", 0),
        ("stacked", 30, 4),
        ("stacked", 128, 0),
        ("stacked", 128, 4, 0),
        ("stacked", 6, 3),
        ("stacked", 128, 4, 2, 3),
    ],
)
def test_sizes_that_make_no_network(sizes: tuple[Any, ...]) -> None:
    with pytest.raises(EcgbatchError):
        NetworkConfig(*sizes)
