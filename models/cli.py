"""The commands about models: `ecgbatch model …`."""

import os
import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from ecgbatch.commands import PATH, as_json, command
from ecgbatch.models.evaluation.commands import compare, evaluate, measure
from ecgbatch.models.torch_extra import require_torch
from ecgbatch.models.training.commands import tune
from ecgbatch.printing import print_mapping, print_note, print_rows, say
from ecgbatch.settings import EcgbatchError, load

if TYPE_CHECKING:
    from ecgbatch.models.config import NetworkConfig
    from ecgbatch.models.weights.model import Model, Weights

F = TypeVar("F", bound=Callable[..., Any])
LONGEST_TOLD = 60


@click.group()
def model() -> None:
    """List, bring in, train, measure and export models."""


def named(function: F) -> F:
    """What the model is to be called."""
    name = click.option("--name", required=True, help="What to call the model.")
    version = click.option("--version", required=True, help="Its version; a pair of name and version stays what it is.")
    return name(version(function))


def described(function: F) -> F:
    """What no checkpoint says of itself."""
    normalization = click.option(
        "--normalization",
        type=PATH,
        metavar="FILE.npz",
        help="normalization_params.npz of its training; default: the published values.",
    )
    return normalization(named(function))


@command("add", group=model, example="ecgbatch model add best.ckpt --name mine --version 1")
@click.argument("checkpoint", type=PATH, metavar="FILE.ckpt", help="The checkpoint.")
@described
def add(checkpoint: Path, normalization: Path | None, name: str, version: str) -> None:
    """Bring in the weights of a Lightning checkpoint.

    Converts a Lightning checkpoint of the parallel xLSTM, once, to safetensors and a description in
    ECGBATCH_MODEL_DIR. Sizes, variant and layout are found from the weights; nothing in the file is run.
    """
    from ecgbatch.models.weights.checkpoint import read_checkpoint

    _add(*read_checkpoint(checkpoint), normalization, name, version)


@command(
    "download",
    group=model,
    example="ecgbatch model download hf:OWNER/REPO/best.ckpt --sha256 HEX --name mine --version 1",
)
@click.argument("source", help="hf:OWNER/REPO/FILE[@REVISION], gdrive:ID or https://...")
@click.option("--sha256", required=True, metavar="HEX", help="The file's SHA-256; a file with another one is not kept.")
@described
def download(source: str, sha256: str, normalization: Path | None, name: str, version: str) -> None:
    """Get a checkpoint from Hugging Face, Google Drive or the web.

    It is a Lightning checkpoint. Checks its SHA-256, and brings its weights in as `model add` does. A private
    repository on Hugging Face needs HF_TOKEN.
    """
    from ecgbatch.models.weights import download

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what has come so far is removed, as on Ctrl-C
    _add(*download.download(source, sha256), normalization, name, version)


def _add(config: "NetworkConfig", weights: "Weights", normalization_file: Path | None, name: str, version: str) -> None:
    """Adds what a checkpoint held as the model that was named."""
    from ecgbatch.models.preprocessing import Normalization
    from ecgbatch.models.weights.normalization_file import load_normalization
    from ecgbatch.models.weights.registry import Registry

    normalization = load_normalization(normalization_file) if normalization_file else Normalization()
    _print_added(Registry(load().model_dir).add(name, version, config, weights, normalization))


def _print_added(model: "Model") -> None:
    say(f"{model.name}:{model.version}  {_sizes(model)}  fingerprint {model.fingerprint[:12]}  in {model.folder}")


@command(
    "train",
    group=model,
    example="ecgbatch model train /data/ptb-xl --recipe xlstm-ecg-1.1.0 --folder training --name mine --version 1",
)
@click.argument("archive", type=PATH, help="The archive's root, with ptbxl_database.csv.")
@click.option("--recipe", required=True, help="A file of settings, or one that ships: xlstm-ecg-1.1.0.")
@click.option("--folder", type=PATH, required=True, help="Where the training lies, new or to go on with.")
@click.option("--name", help="The model's name.")
@click.option("--version", help="The model's version.")
@click.option("--cross-fit", is_flag=True, help="Train eight teachers instead, each without one of folds 1 to 8.")
@click.option("--teachers", type=PATH, multiple=True, help="A folder of teachers to learn from; may be given again.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: ECGBATCH_DEVICE.")
def train(
    archive: Path,
    recipe: str,
    folder: Path,
    name: str | None,
    version: str | None,
    cross_fit: bool,
    teachers: tuple[Path, ...],
    device: str | None,
) -> None:
    """Train a model on PTB-XL.

    The archive is laid out as PTB-XL at 100 Hz: folds 1 to 8 train the model, fold 9 chooses its best epoch, its
    calibration and its thresholds. Stopped, it goes on where it was at the next call. The model goes to
    ECGBATCH_MODEL_DIR, all else stays in the folder of the training: settings.json, epochs.csv, last.pt.
    """
    require_torch("training")
    from ecgbatch.models.training.examples import prepare
    from ecgbatch.models.training.loop import Training
    from ecgbatch.models.training.recipe import load_recipe
    from ecgbatch.models.training.start import mean_weights
    from ecgbatch.models.training.teachers import taught_by, train_teachers
    from ecgbatch.models.weights.registry import Registry

    settings = load()
    how, device, registry = load_recipe(recipe), device or settings.device, Registry(settings.model_dir)
    if device == "cuda":
        from ecgbatch.models.kernels.cuda import require_gpu

        require_gpu()
    if cross_fit == (name is not None or version is not None):
        raise EcgbatchError("a training ends in a model, --name and --version, or in teachers, --cross-fit")
    examples = prepare(archive, folder, device, print_note)
    if cross_fit:
        for teacher in train_teachers(how, folder, examples, print_note):
            print(f"{teacher.folder}: epoch {teacher.best[0]}, macro AUC {teacher.best[1]:.4f} on fold 9")
        return
    if name is None or version is None:
        raise EcgbatchError("a model needs both --name and --version")
    taught = taught_by(teachers, examples, folder, print_note, how.network.extremes) if teachers else None
    start = mean_weights(registry, how.start, how.network) if how.start else None
    run = Training(how, folder, examples, taught, start)
    if not run.ended:
        registry.check_free(name, version)  # before the hours, not after them
    run.run(print_note)
    _print_added(run.keep(registry, name, version))
    epoch, macro_auc, _ = run.best
    print(f"epoch {epoch} of {run.step // run.steps_per_epoch}, macro AUC {macro_auc:.4f} on fold 9")


@command("list", group=model, example="ecgbatch model list")
@as_json
def list_models(as_json: bool) -> None:
    """List the models that ship and those that were added.

    The default is what `run` and `worker` score with unless ECGBATCH_MODEL names another.
    """
    from ecgbatch.models.weights.registry import Registry

    registry = Registry(load().model_dir)
    models, default = registry.available(), registry.default()
    if as_json:
        keys = list(default.description)
        found = ([*(m.description.get(key) for key in keys), str(m.folder), m == default] for m in models)
        print_rows([*keys, "folder", "default"], found, as_json=True)
        return
    columns = ["name", "version", "default", "classes", "network", "fingerprint", "folder"]
    rows = [
        (m.name, m.version, "*" if m == default else "", _told(m), _sizes(m), m.fingerprint[:12], m.folder)
        for m in models
    ]
    print_rows(columns, rows)


@command("use", group=model, example="ecgbatch model use mine:1")
@click.argument("wanted", metavar="NAME[:VERSION]", help="The model; the newest of its name without a version.")
def use(wanted: str) -> None:
    """Choose the default model.

    It is what `run` and `worker` score with from now on, unless ECGBATCH_MODEL names another. The choice is kept in
    ECGBATCH_MODEL_DIR.
    """
    from ecgbatch.models.weights.registry import Registry

    settings = load()
    say(f"{Registry(settings.model_dir).use(wanted)} is the default model")
    if settings.model is not None:
        print_note(f"ECGBATCH_MODEL is set and goes before it: {settings.model}")


for _command in (tune, evaluate, compare, measure):
    model.add_command(_command)


@command("export", group=model, example="ecgbatch model export --format onnx --raw --check /data/ptb-xl model.onnx")
@click.argument("file", type=PATH, help="Where to write it.")
@click.option(
    "--format", "kind", required=True, type=click.Choice(["onnx", "torchscript", "hub"]), help="What it is to be."
)
@click.option("--raw", is_flag=True, help="Let the file take mV at 100 Hz and do the cleaning as well.")
@click.option("--int8", is_flag=True, help="Keep the matrices of an ONNX file in eight bits: a third of the size.")
@click.option(
    "--check",
    type=PATH,
    metavar="ARCHIVE",
    help="Compare on records of this archive, up to 64 of ten seconds at 100 Hz; without it on made-up signals.",
)
def export_model(
    file: Path, kind: Literal["onnx", "torchscript", "hub"], raw: bool, int8: bool, check: Path | None
) -> None:
    """Write a model as one file that runs without ecgbatch.

    Writes the model of ECGBATCH_MODEL, or the default one, as an ONNX or TorchScript file that takes `signal` (B, T,
    12) and `metadata` (B, 2), age in years and sex, and gives `probabilities` (B, K), for any number B of records. The
    file is compared with torch first, and not kept if it is off by more than 1e-5. ONNX needs the extra `export`.
    As `hub` it is a folder with config.json and model.safetensors, which `ecgbatch.load_model` takes.
    """
    from ecgbatch.models.weights.registry import Registry

    wanted = Registry(load().model_dir).find(load().model)
    if kind == "hub":
        from ecgbatch.models.weights.hub import write_folder

        if raw or int8 or check is not None:
            raise click.UsageError("--raw, --int8 and --check are of files that are exported, not of --format hub")
        write_folder(wanted, file)
        print(f"{file}  {wanted}  fingerprint {wanted.fingerprint[:12]}")
        return
    require_torch("an export")
    from ecgbatch.models.export.export import export

    exported = export(wanted, file, kind, raw=raw, int8=int8, archive=check)
    print(
        f"{file}  {wanted.name}:{wanted.version}  fingerprint {wanted.fingerprint[:12]}  "
        f"{exported.size / 1e6:.2f} MB  within {exported.difference:.1e} of float64 on {exported.records} records"
    )


@command("bench", group=model, example="ecgbatch model bench")
@as_json
def bench_model(as_json: bool) -> None:
    """Measure a model's speed on this machine.

    Measures records per second and milliseconds per stage of every kernel that can be had here, at several batch
    sizes, and keeps the number of processes and the batch size that are best in ECGBATCH_MODEL_DIR, where `run` and
    `worker` find them.
    """
    os.environ["OMP_NUM_THREADS"] = "1"  # one thread, as in a worker process; set before numpy comes
    from ecgbatch.models import bench, suggestion
    from ecgbatch.models.weights.registry import Registry

    settings = load()
    found = bench.measure(Registry(settings.model_dir).find(settings.model))
    path = suggestion.keep(settings.model_dir, found.fingerprint, found.suggested)
    if as_json:
        measurements = [each._asdict() for each in found.measurements]
        print_mapping(asdict(found) | {"measurements": measurements, "kept_in": str(path)}, as_json=True)
        return
    print_rows(bench.Measurement._fields, found.measurements)
    summary = {"model": found.model, "operations per record": f"{found.gflop_per_record:.2f} GFLOP"}
    summary["matrix products in float32"] = f"{found.matrix_gflops:.0f} GFLOP/s on one core"
    for kernel, best in found.suggested.items():
        summary[f"suggested for {kernel}"] = f"processes {best.processes}, batch size {best.batch_size}"
    print_mapping(summary)
    print_note(f"kept in {path}: `run` and `worker` use it where nothing else is set")


def _told(model: "Model") -> str:
    """The classes of a model, the first of many."""
    names = " ".join(model.labels)
    return (
        names if len(names) <= LONGEST_TOLD else f"{names[:LONGEST_TOLD].rpartition(' ')[0]} ... of {len(model.labels)}"
    )


def _sizes(model: "Model") -> str:
    config = model.config
    sizes = f"{config.variant}, embedding {config.embedding_dim}, {config.heads} heads, {config.blocks} blocks"
    parts = (f", {name} {value}" for name in ("span", "extremes") if (value := getattr(config, name)))
    return f"{sizes}, patch {config.patch}" + "".join(parts)
