"""The GPU's way through the network and the cleaning, on a CPU; its Triton code in Triton's interpreter."""

import importlib.util
import logging
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import golden
import numpy as np
import pytest
import reference
import torch
from float32 import assert_cleaned, in_float64
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgbatch.models import preprocessing
from ecgbatch.models.config import NetworkConfig
from ecgbatch.models.kernels import cuda, triton_scan
from ecgbatch.models.network import SLSTMScan, slstm_scan
from ecgbatch.models.preprocessing import Normalization
from ecgbatch.records import quality
from ecgbatch.records.leads import LEADS
from ecgbatch.records.recording import SAMPLES
from ecgbatch.settings import EcgbatchError

CPU = torch.device("cpu")
SMALL = NetworkConfig("stacked", 32, 2)
TRITON = "needs triton 3.7, which torch's CUDA builds bring and `pip install triton` gives to others"


def on_cpu(config: NetworkConfig) -> cuda.CudaNetwork:
    return cuda.CudaNetwork(golden.golden_weights(config), config, Normalization(), device="cpu")


def recordings(batch: int, drift: float = 1.0, seed: int = 0) -> np.ndarray:
    """Noise on a slow wave and an offset of `drift` mV: (B, 1000, 12)."""
    rng = np.random.default_rng(seed)
    wave = drift * (1 + np.sin(np.arange(SAMPLES) / 70))[:, None]
    return 0.3 * rng.standard_normal((batch, SAMPLES, len(LEADS))) + wave


def scan_example(heads: int, steps: int, batch: int, dim: int, size: float) -> tuple[torch.Tensor, ...]:
    """Gates, recurrent weights and the state before them."""
    numbers = torch.Generator().manual_seed(heads + steps + batch + dim)
    gates = size * torch.randn(heads, steps, batch, 4 * dim, generator=numbers)
    recurrent = torch.randn(heads, dim, 4 * dim, generator=numbers) / dim**0.5
    h, c, n = torch.randn(3, heads, batch, dim, generator=numbers)
    n[:, 0] = -torch.inf  # a record that begins
    return gates, recurrent, h / 2, c / 2, n


def assert_scans_as_plain_torch(scan: SLSTMScan, example: tuple[torch.Tensor, ...], device: str = "cpu") -> None:
    """Within 32 times what float32 rounds off the largest gate; plain torch itself is up to 7 times that off."""
    found = scan(*(each.to(device) for each in example))
    expected = slstm_scan(*(each.double() for each in example))
    error = 32 * 2**-24 * example[0].abs().max().item()
    for ours, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.cpu(), plain.float(), atol=error, rtol=1e-6)


# --- Cleaning


@pytest.mark.parametrize("drift", [0.0, 2.0, 50.0])
def test_cleaning_is_what_scipy_does(drift: float) -> None:
    """Also of leads that drift far away, where a product in float32 is wrong by 4e-4."""
    normalization = Normalization(mean=0.01, std=0.3)
    signals = recordings(3, drift)
    network = cuda.CudaNetwork(golden.golden_weights(SMALL), SMALL, normalization, device="cpu")
    cleaned, found = network.clean(signals)
    np.testing.assert_allclose(found, quality.measure(preprocessing.filtered(signals)), rtol=1e-9)
    assert_cleaned(cleaned.numpy(), reference.clean(signals, normalization), signals)


# --- The network


@pytest.mark.parametrize(("variant", "batch"), [("stacked128", 8), ("stacked64", 1), ("hierarchical128", 8)])
def test_golden_numbers(shared: Path, variant: str, batch: int) -> None:
    signal = np.load(shared / "golden/expected.npz")["preprocessed"]
    network = on_cpu(golden.CONFIGS[variant])
    parts = [network(signal[i : i + batch], golden.METADATA[i : i + batch]) for i in range(0, 8, batch)]
    assert np.abs(np.concatenate(parts) - golden.PROBABILITIES[variant]).max() < golden.TOLERANCE


@settings(max_examples=15, deadline=None)
@given(
    config=st.builds(
        NetworkConfig,
        variant=st.sampled_from(["stacked", "hierarchical"]),
        embedding_dim=st.sampled_from([8, 24, 32]),
        heads=st.sampled_from([1, 2, 4]),
        blocks=st.integers(1, 3),
        patch=st.sampled_from([1, 4]),
        span=st.sampled_from([0, 1, 30, 80]),
        extremes=st.sampled_from([0, 1, 100]),
    ),
    batch=st.integers(1, 3),
    steps=st.integers(1, 205),
)
def test_whole_sequences_are_the_network(config: NetworkConfig, batch: int, steps: int) -> None:
    weights = golden.golden_weights(config)
    whole = cuda.WholeSequence(config, slstm_scan, cuda.mlstm_in_chunks)
    whole.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
    numbers = torch.Generator().manual_seed(steps)
    signal = torch.randn(batch, steps * config.patch, len(LEADS), generator=numbers, dtype=torch.float64)
    metadata = torch.tensor([[60.0, 1.0]], dtype=torch.float64).expand(batch, 2)
    with torch.inference_mode():
        expected = golden.network(config, weights).double()(signal, metadata)
        torch.testing.assert_close(whole.eval().double()(signal, metadata), expected, atol=1e-10, rtol=0)


def test_from_millivolts_to_probabilities() -> None:
    config = golden.CONFIGS["stacked64"]
    network = on_cpu(config)
    signals, metadata = recordings(5), golden.METADATA[:5]
    probabilities = network(network.clean(signals)[0], metadata)
    assert probabilities.dtype == np.float32
    cleaned = reference.clean(signals, Normalization())
    in_float64(config, golden.golden_weights(config), cleaned, metadata).assert_given(probabilities)


def test_products_are_in_full_float32_whatever_was_set() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        on_cpu(SMALL)
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so() -> None:
    with pytest.raises(EcgbatchError, match="use device cpu"):
        cuda.CudaNetwork(golden.golden_weights(SMALL), SMALL, Normalization())


# --- The loop of the sLSTM


State = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def broken(*_: torch.Tensor) -> State:
    raise RuntimeError("Failed to find C compiler")


def off(*inputs: torch.Tensor) -> State:
    hidden, h, c, n = slstm_scan(*inputs)
    return hidden, h, c + 3e-5, n


def not_a_number(*inputs: torch.Tensor) -> State:
    hidden, h, c, n = slstm_scan(*inputs)
    return hidden * float("nan"), h, c, n


@pytest.mark.parametrize(
    ("scan", "why"), [(broken, "Failed to find C compiler"), (off, "3.0e-05"), (not_a_number, "inf")]
)
def test_a_scan_that_fails_or_disagrees_is_not_used(
    scan: SLSTMScan, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert triton_scan.checked(scan, SMALL, CPU) is slstm_scan
    assert why in caplog.text


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A second copy of the module, its Triton code in the interpreter."""
    pytest.importorskip("triton", minversion="3.7", reason=TRITON)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    spec = importlib.util.spec_from_file_location("interpreted_scan", triton_scan.__file__)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")
@pytest.mark.parametrize(
    ("heads", "steps", "batch", "dim", "size"),
    [
        pytest.param(4, 60, 3, 32, 3.0, id="the published sizes"),
        pytest.param(2, 30, 17, 16, 3.0, id="two tiles, one nearly empty"),
        pytest.param(1, 1, 16, 32, 3.0, id="a single step"),
        pytest.param(3, 20, 33, 24, 3.0, id="a head that is no power of two"),
        pytest.param(2, 20, 5, 2, 3.0, id="a head narrower than a tile"),
        pytest.param(2, 40, 4, 32, 100.0, id="saturated gates"),
    ],
)
def test_triton_gives_what_plain_torch_gives(
    interpreted: ModuleType, heads: int, steps: int, batch: int, dim: int, size: float
) -> None:
    assert_scans_as_plain_torch(interpreted.triton_scan, scan_example(heads, steps, batch, dim, size))


@pytest.mark.parametrize(("heads", "steps", "batch", "dim"), [(2, 7, 17, 8), (1, 1, 3, 16), (3, 9, 5, 32)])
def test_its_gradient_is_that_of_plain_torch(
    interpreted: ModuleType, heads: int, steps: int, batch: int, dim: int
) -> None:
    """Of what comes out and of the state that is left, with respect to all that goes in."""
    example = scan_example(heads, steps, batch, dim, 2.0)
    gradients = []
    for scan, kind in ((interpreted.triton_scan, torch.float32), (slstm_scan, torch.float64)):
        inputs = [part.to(kind).clone().requires_grad_() for part in example]
        outputs = scan(*inputs)
        weighted = [torch.linspace(-1, 1, part.numel(), dtype=kind).view(part.shape) * part for part in outputs]
        gradients.append(torch.autograd.grad(torch.stack([part.sum() for part in weighted]).sum(), inputs))
    for ours, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(ours.double(), plain, atol=3e-6 * plain.abs().max().item(), rtol=0)


def test_triton_passes_the_check_at_the_start(interpreted: ModuleType) -> None:
    assert interpreted.checked(interpreted.triton_scan, SMALL, CPU, gradient=True) is interpreted.triton_scan


@pytest.mark.parametrize("architecture", [80, 89, 90])
@pytest.mark.parametrize("dim", [16, 32])
def test_triton_compiles_for_a_gpu_without_one(
    architecture: int, dim: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To machine code, by the assembler that Triton carries; its products are not in TF32."""
    triton = pytest.importorskip("triton", minversion="3.7", reason=TRITON)
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    sizes = {"DIM": dim, "WIDTH": dim, "TILE": triton_scan.TILE}
    for loop, more in ((triton_scan.slstm_loop, {"KEEP": False}), (triton_scan.slstm_loop_back, {})):
        constants = sizes | more
        kinds = {name: "i32" if name in ("steps", "batch") else "*fp32" for name in loop.arg_names}
        source = ASTSource(loop, kinds | dict.fromkeys(constants, "constexpr"), constants)
        built = triton.compile(source, target=GPUTarget("cuda", architecture, 32))
        assert built.asm["cubin"]
        assert "fma.rn.f32" in built.asm["ptx"]
        assert "tf32" not in built.asm["ptx"]
        assert built.metadata.shared <= 64 * 1024


# --- On a GPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("variant", golden.CONFIGS)
def test_golden_numbers_on_a_gpu(shared: Path, variant: str) -> None:
    config = golden.CONFIGS[variant]
    network = cuda.CudaNetwork(golden.golden_weights(config), config, Normalization())
    signal = np.load(shared / "golden/expected.npz")["preprocessed"]
    for batch in (1, 8):
        parts = [network(signal[i : i + batch], golden.METADATA[i : i + batch]) for i in range(0, 8, batch)]
        assert np.abs(np.concatenate(parts) - golden.PROBABILITIES[variant]).max() < golden.TOLERANCE
    signals = recordings(3, 50.0)
    assert_cleaned(network.clean(signals)[0].cpu().numpy(), reference.clean(signals, Normalization()), signals)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_triton_on_a_gpu() -> None:
    pytest.importorskip("triton")
    assert_scans_as_plain_torch(triton_scan.triton_scan, scan_example(4, SAMPLES, 33, 32, 3.0), "cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_training_can_use_it_on_a_gpu() -> None:
    pytest.importorskip("triton")
    assert triton_scan.fastest_scan(SMALL, torch.device("cuda"), gradient=True) is triton_scan.triton_scan
