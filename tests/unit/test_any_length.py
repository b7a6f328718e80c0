"""Records of 10, 7.37 and 2.5 seconds, from millivolts to probabilities, by every kernel and every exported file.

They are compared with the plain reference in float64, cleaned by scipy's filters at the record's own length.
"""

from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest
import reference
import torch
from float32 import in_float64
from numpy.typing import NDArray

from ecgbatch.models.export import export
from ecgbatch.models.kernels import compiled
from ecgbatch.models.kernels.cuda import CudaNetwork
from ecgbatch.models.scorer import Scorer
from ecgbatch.models.weights.model import Model
from ecgbatch.models.weights.registry import SHIPPED, Registry

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")

METADATA = np.array([[60.0, 0.0]], np.float32)
Score = Callable[[NDArray[np.float64]], NDArray[np.float32]]


@pytest.fixture(scope="module", params=["xlstm-ecg:1.0.0", "xlstm-ecg:1.1.0", "xlstm-ecg:1.3.0"])
def model(request: pytest.FixtureRequest) -> Model:
    """The second takes in patches of four samples, of which 7.37 seconds leave one over; the third has all there is."""
    return Registry(SHIPPED).find(request.param)


@pytest.fixture(scope="module")
def ways(model: Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Score]:
    """Each way from millivolts to probabilities."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "MADE_UP", 1)  # to try each file on more takes longer than all that is done here
        for file_format in export.FORMATS:
            export.export(model, folder / file_format, file_format, raw=True)
    on_cpu, on_gpu = (
        Scorer(model, kernel="torch"),
        CudaNetwork(model.weights(), model.config, model.normalization, "cpu"),
    )
    in_onnx, in_torch = onnxruntime.InferenceSession(folder / "onnx"), torch.jit.load(folder / "torchscript")

    def by(instructions: str) -> Score:
        network = compiled.CompiledNetwork(model.weights(), model.config, instructions)
        return lambda signals: network(compiled.clean(signals, model.normalization, instructions)[0], METADATA)

    def by_onnx(signals: NDArray[np.float64]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = in_onnx.run(None, {"signal": signals.astype(np.float32), "metadata": METADATA})[0]
        return found

    def by_torchscript(signals: NDArray[np.float64]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = in_torch(torch.from_numpy(signals).float(), torch.from_numpy(METADATA)).numpy()
        return found

    return {name: by(name) for name in compiled.usable_instructions()} | {
        "torch": lambda signals: on_cpu.score(on_cpu.clean(signals)[0], METADATA),
        "cuda": lambda signals: on_gpu(on_gpu.clean(signals)[0], METADATA),
        "onnx": by_onnx,
        "torchscript": by_torchscript,
    }


@pytest.mark.parametrize("samples", [1000, 737, 250])
def test_every_way_gives_what_the_reference_gives(model: Model, ways: dict[str, Score], samples: int) -> None:
    signals = np.ascontiguousarray(export.made_up_signals()[:1, -samples:])
    cleaned = reference.clean(signals, model.normalization)
    weights = model.weights()
    exact = in_float64(model.config, weights, cleaned, METADATA)
    sizes = model.config.heads, model.config.patch, model.config.span, model.config.extremes
    expected = reference.probabilities(cleaned, METADATA, weights, *sizes)
    np.testing.assert_allclose(exact.probabilities, expected, atol=1e-9, rtol=0)
    for score in ways.values():
        exact.assert_given(score(signals))
