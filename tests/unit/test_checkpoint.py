"""Checkpoints: both layouts, any sizes, and every way in which a file can be wrong."""

import os
import pickle
import tracemalloc
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import golden
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecgbatch.models.config import NetworkConfig
from ecgbatch.models.weights.checkpoint import read_checkpoint
from ecgbatch.models.weights.torch_file import TorchFile
from ecgbatch.settings import EcgbatchError

SMALL = NetworkConfig("stacked", 16, 2, 1)
KERNEL = "slstm_branch.blocks.0.xlstm.slstm_cell._recurrent_kernel_"


@pytest.fixture
def weights() -> golden.Weights:
    return golden.golden_weights(SMALL)


def refusal(path: Path) -> str:
    """What is said about a file that cannot be read; always one line that names the file."""
    with pytest.raises(EcgbatchError) as error:
        read_checkpoint(path)
    said = str(error.value)
    assert str(path) in said
    assert "\n" not in said
    return said


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    config=st.builds(
        NetworkConfig,
        variant=st.sampled_from(["stacked", "hierarchical"]),
        embedding_dim=st.sampled_from([8, 24, 64]),
        heads=st.sampled_from([1, 2, 4, 8]),
        blocks=st.integers(1, 3),
    )
)
def test_sizes_and_layout_are_found_from_the_weights(tmp_path: Path, config: NetworkConfig) -> None:
    weights = golden.golden_weights(config)
    for stored in (weights, golden.as_trained_on_gpu(weights, config)):
        found, read = read_checkpoint(golden.write_checkpoint(tmp_path / "a.ckpt", stored))
        assert found == config
        assert read.keys() == weights.keys()
        for key, value in read.items():
            assert value.dtype == np.float32
            np.testing.assert_array_equal(value, weights[key], err_msg=key)


def test_the_bias_is_turned_with_its_kernel(weights: golden.Weights) -> None:
    """The two layouts of a bias have one shape: the test would be empty if they were equal."""
    key = KERNEL.replace("_recurrent_kernel_", "_bias_")
    stored = golden.as_trained_on_gpu(weights, SMALL)
    assert stored[key].shape == weights[key].shape
    assert not np.array_equal(stored[key], weights[key])


def test_a_patch_is_found_from_the_weights(tmp_path: Path) -> None:
    config = NetworkConfig("hierarchical", 16, 2, 1, patch=5)
    path = golden.write_checkpoint(tmp_path / "patched.ckpt", golden.golden_weights(config))
    assert read_checkpoint(path)[0] == config


def test_half_precision_becomes_float32(tmp_path: Path, weights: golden.Weights) -> None:
    path = tmp_path / "half.ckpt"
    torch.save({"state_dict": {key: torch.from_numpy(w).half() for key, w in weights.items()}}, path)
    _, read = read_checkpoint(path)
    np.testing.assert_allclose(read["classifier.0.weight"], weights["classifier.0.weight"], rtol=1e-3, atol=1e-6)
    assert read["classifier.0.weight"].dtype == np.float32


class Harm:
    """Runs a command when a careless reader unpickles it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def test_a_pickle_that_wants_more_is_refused(tmp_path: Path, weights: golden.Weights) -> None:
    mark = tmp_path / "harmed"
    zipped = golden.write_checkpoint(tmp_path / "zipped.ckpt", weights, callbacks=Harm(mark))
    bare = tmp_path / "bare.ckpt"
    bare.write_bytes(pickle.dumps({"state_dict": Harm(mark)}))
    for path in (zipped, bare):
        assert "refused" in refusal(path)
    assert not mark.exists()
    pickle.loads(bare.read_bytes())
    assert mark.exists(), "the pickle has to be one that does harm"


@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off", b"\x00" * 1000, b"\x89PNG\r\n\x1a\n"]
)
def test_a_file_that_is_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "some.ckpt"
    path.write_bytes(content)
    assert "no checkpoint" in refusal(path)


def test_a_checkpoint_cut_off_anywhere(tmp_path: Path, weights: golden.Weights) -> None:
    path = golden.write_checkpoint(tmp_path / "a.ckpt", weights)
    whole = path.read_bytes()
    for length in range(1, len(whole), len(whole) // 7):
        path.write_bytes(whole[:length])
        assert "no checkpoint" in refusal(path)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 1}, {"state_dict": [1]}, {"state_dict": {1: torch.zeros(1)}}, 5])
def test_something_else_that_torch_saved(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "else.ckpt"
    torch.save(content, path)
    assert "no checkpoint" in refusal(path)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    assert "no file" in refusal(tmp_path / "missing.ckpt")
    assert "no checkpoint" in refusal(tmp_path)


def test_another_network(tmp_path: Path) -> None:
    path = tmp_path / "else.ckpt"
    torch.save({"state_dict": torch.nn.Linear(3, 4).state_dict()}, path)
    assert "no parallel xLSTM" in refusal(path)


def test_another_shape_is_named(tmp_path: Path, weights: golden.Weights) -> None:
    weights["mlstm_branch.blocks.0.xlstm.proj_up.weight"] = np.zeros((96, 16), np.float32)
    weights["classifier.0.weight"] = np.zeros((1, 1), np.float32)
    said = refusal(golden.write_checkpoint(tmp_path / "a.ckpt", weights))
    assert "mlstm_branch.blocks.0.xlstm.proj_up.weight has the shape (96, 16), not (128, 16)" in said
    assert "classifier" not in said, "only the first is named"


def test_a_missing_and_a_superfluous_parameter(tmp_path: Path, weights: golden.Weights) -> None:
    longer = weights | {"classifier.9.weight": np.zeros(3, np.float32)}
    assert "classifier.9.weight" in refusal(golden.write_checkpoint(tmp_path / "a.ckpt", longer))
    shorter = {key: value for key, value in weights.items() if key != "embedding_norm.bias"}
    assert "lacks embedding_norm.bias" in refusal(golden.write_checkpoint(tmp_path / "b.ckpt", shorter))


@pytest.mark.parametrize("key", ["embedding.weight", KERNEL])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4, 5), (0, 0, 0)])
def test_the_parameters_that_tell_the_sizes_are_wrong(
    tmp_path: Path, weights: golden.Weights, key: str, shape: tuple[int, ...]
) -> None:
    weights[key] = np.zeros(shape, np.float32)
    refusal(golden.write_checkpoint(tmp_path / "a.ckpt", weights))


def test_values_that_are_no_numbers(tmp_path: Path, weights: golden.Weights) -> None:
    weights["embedding.bias"][3] = np.nan
    assert "embedding.bias" in refusal(golden.write_checkpoint(tmp_path / "a.ckpt", weights))
    path = tmp_path / "integers.ckpt"
    torch.save({"state_dict": {"embedding.weight": torch.zeros(3, 3, dtype=torch.int64)}}, path)
    assert "embedding.weight" in refusal(path)


# ------------------------------------------------------------------------------------------ hostile files


def pickled(content: bytes, folder: Path, storages: Sequence[bytes] = (), compress: int = zipfile.ZIP_STORED) -> Path:
    """A file as torch.save lays it out, of this pickle and these storages."""
    path = folder / "hostile.ckpt"
    with zipfile.ZipFile(path, "w", compress) as file:
        file.writestr("archive/data.pkl", content)
        for number, data in enumerate(storages):
            file.writestr(f"archive/data/{number}", data)
    return path


def test_a_tensor_without_numbers(tmp_path: Path, weights: golden.Weights) -> None:
    state = {key: torch.from_numpy(value) for key, value in weights.items()}
    state["embedding.bias"] = torch.zeros(16, device="meta")
    torch.save({"state_dict": state}, tmp_path / "a.ckpt")
    assert "refused" in refusal(tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1).expand(10**12, 4),
        torch.zeros(1).expand(10**6),
        torch.zeros(4).expand(3, 4),
        torch.zeros(6).as_strided((4, 3), (1, 1)),
    ],
)
def test_a_tensor_that_repeats_its_numbers(tmp_path: Path, tensor: torch.Tensor) -> None:
    torch.save({"state_dict": {"embedding.weight": tensor}}, tmp_path / "a.ckpt")
    assert "of which the file has" in refusal(tmp_path / "a.ckpt")


def test_a_tensor_beyond_its_storage(tmp_path: Path) -> None:
    torch.save({"state_dict": {"embedding.weight": torch.zeros(16)}}, tmp_path / "whole.ckpt")
    with zipfile.ZipFile(tmp_path / "whole.ckpt") as whole:
        data = whole.read("whole/data.pkl")
    assert data.count(b"K\x10\x85") == 1, "the shape is (16,)"
    moved = data.replace(b"K\x00K\x10\x85", b"K\x08K\x10\x85")
    assert moved != data
    assert "of which the file has" in refusal(pickled(moved, tmp_path, [bytes(64)]))
    assert "claims more" not in refusal(pickled(data, tmp_path, [bytes(64)])), "only the network is wrong"
    assert "no checkpoint" in refusal(pickled(data, tmp_path, [bytes(60)]))
    assert "claims more" in refusal(pickled(data, tmp_path, [bytes(68)]))


def test_a_small_file_that_unpacks_to_a_large_one(tmp_path: Path) -> None:
    torch.save({"state_dict": {"embedding.weight": torch.zeros(2**24)}}, tmp_path / "whole.ckpt")
    with zipfile.ZipFile(tmp_path / "whole.ckpt") as whole:
        data = whole.read("whole/data.pkl")
    path = pickled(data, tmp_path, [bytes(2**26)], zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**17
    tracemalloc.start()
    assert "compressed" in refusal(path)
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()


def test_more_entries_than_a_checkpoint_has(tmp_path: Path) -> None:
    path = pickled(b"\x80\x02N.", tmp_path, [b""] * 10_001)
    assert "no checkpoint" in refusal(path)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02" + b"]" * 1000 + b"a" * 999 + b".",
        b"\x80\x02}" + b"(" * 100_000 + b"t" * 100_000 + b"K\x01s.",
        b"\x80\x02r\xff\xff\xff\x7f.",
        b"\x80\x02Nr\xff\xff\xff\x7f.",
        b"\x80\x02}(X\x0a\x00\x00\x00state_dictK\x01u.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(tR.",
        b"\x80\x02ccollections\nOrderedDict\nK\x01R.",
        b"\x80\x02ctorch\nFloatStorage\n)R.",
        b"\x80\x02K\x01Q.",
        b"\x80\x02X\xff\xff\xff\x7fa.",
        b"\x80\x02" + b"N" * 5_000_000 + b".",
        b"\x80\x02\x8a\x80.",
        b"I" + b"1" * 100_000 + b"\n.",
        b"\x80\x02.",
        b"\x80\x02N",
    ],
    ids=range(15),
)
def test_a_pickle_that_makes_no_sense(tmp_path: Path, content: bytes) -> None:
    refusal(pickled(content, tmp_path))


@pytest.mark.parametrize(
    "name", ["os system", "builtins eval", "torch load", "torch._utils _rebuild_tensor", "torch.nn Linear", "torch hub"]
)
def test_names_of_code_are_refused_before_they_are_called(tmp_path: Path, name: str) -> None:
    said = refusal(pickled(b"\x80\x02c" + name.replace(" ", "\n").encode() + b"\n.", tmp_path))
    assert "refused" in said and name.replace(" ", ".") in said


def test_a_name_with_control_characters_is_shown_harmlessly(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a\x1b[2J\nb": torch.zeros(3, dtype=torch.int64)}}, tmp_path / "a.ckpt")
    assert "\x1b" not in refusal(tmp_path / "a.ckpt")


def test_values_beyond_float32(tmp_path: Path, weights: golden.Weights) -> None:
    state = {key: torch.from_numpy(value).double() for key, value in weights.items()}
    state["embedding.bias"][0] = 1e300
    torch.save({"state_dict": state}, tmp_path / "a.ckpt")
    assert "not finite" in refusal(tmp_path / "a.ckpt")


def test_tensors_of_other_layouts_and_kinds_are_read_as_torch_does(tmp_path: Path) -> None:
    numbers = torch.arange(24, dtype=torch.float32)
    state = {
        "turned": numbers.view(4, 6).T,
        "part": numbers[6:18].view(3, 4),
        "short": numbers.bfloat16(),
        "nothing": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(numbers.double()),
    }
    torch.save({"state_dict": state, "set": {1}, "kind": torch.float32, "size": numbers.size()}, tmp_path / "a.ckpt")
    with TorchFile(tmp_path / "a.ckpt") as file:
        for key, tensor in state.items():
            np.testing.assert_array_equal(file.array(file.content["state_dict"][key]), tensor.detach().float().numpy())
