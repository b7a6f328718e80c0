"""The commands about models: model add, model list, model bench."""

import argparse
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from output import print_mapping, print_rows, remark
from settings import load

if TYPE_CHECKING:
    from models.registry import Model


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the verbs of this room."""
    verbs = commands.add_parser(
        "model", help="bring models in, list them", description="Brings models in and lists them."
    ).add_subparsers(metavar="COMMAND", required=True)
    add = verbs.add_parser(
        "add",
        help="bring in the weights of a Lightning checkpoint",
        description="Converts a Lightning checkpoint of the parallel xLSTM, once, to safetensors and a description in "
        "ECGBATCH_MODEL_DIR. Sizes, variant and layout are found from the weights; nothing in the file is run.",
    )
    add.add_argument("checkpoint", type=Path, metavar="FILE.ckpt", help="the checkpoint")
    add.add_argument(
        "--normalization",
        type=Path,
        metavar="FILE.npz",
        help="normalization_params.npz of its training; default: the published values",
    )
    add.add_argument("--name", required=True, help="what to call the model")
    add.add_argument("--version", required=True, help="its version; a pair of name and version stays what it is")
    add.set_defaults(run=run_add)
    listing = verbs.add_parser(
        "list",
        help="list the models there are",
        description="Lists the models that ship and those that were added; the last is used unless another is named.",
    )
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(run=run_list)
    bench = verbs.add_parser(
        "bench",
        help="measure a model's speed on this machine",
        description="Measures records per second and milliseconds per stage of every kernel that can be had here, at "
        "several batch sizes, and keeps the number of processes and the batch size that are best in "
        "ECGBATCH_MODEL_DIR, where `run` and `worker` find them.",
    )
    bench.add_argument("--json", action="store_true", help="print JSON")
    bench.set_defaults(run=run_bench)


def run_add(args: argparse.Namespace) -> int:
    from models import registry
    from models.checkpoint import read_checkpoint
    from models.preprocessing import Normalization, load_normalization

    normalization = load_normalization(args.normalization) if args.normalization else Normalization()
    config, weights = read_checkpoint(args.checkpoint)
    model = registry.add(args.name, args.version, config, weights, normalization)
    print(f"{model.name}:{model.version}  {_sizes(model)}  fingerprint {model.fingerprint[:12]}  in {model.folder}")
    return 0


def run_list(args: argparse.Namespace) -> int:
    from models import registry

    models = registry.available()
    if args.json:
        keys = list(models[-1].description) if models else []
        found = ([*(m.description.get(key) for key in keys), str(m.folder)] for m in models)
        print_rows([*keys, "folder"], found, as_json=True)
        return 0
    columns = ["name", "version", "state", "network", "fingerprint", "folder"]
    state = {True: "trained", False: "untrained"}
    rows = [(m.name, m.version, state[m.trained], _sizes(m), m.fingerprint[:12], str(m.folder)) for m in models]
    print_rows(columns, rows)
    if untrained := [f"{m.name}:{m.version}" for m in models if not m.trained]:
        remark(f"untrained, their probabilities mean nothing: {', '.join(untrained)}")
    return 0


def run_bench(args: argparse.Namespace) -> int:
    os.environ["OMP_NUM_THREADS"] = "1"  # one thread, as in a worker process; set before numpy comes
    from models import bench, registry

    found = bench.measure(registry.find(load().model))
    path = bench.keep(found)
    if args.json:
        rates = [rate._asdict() for rate in found.rates]
        print_mapping(asdict(found) | {"rates": rates, "kept_in": str(path)}, as_json=True)
        return 0
    print_rows(bench.Rate._fields, found.rates)
    summary = {"model": found.model, "operations per record": f"{found.gflop_per_record:.2f} GFLOP"}
    summary["matrix products in float32"] = f"{found.matrix_gflops:.0f} GFLOP/s on one core"
    for kernel, best in found.suggested.items():
        summary[f"suggested for {kernel}"] = f"processes {best.processes}, batch size {best.batch_size}"
    print_mapping(summary)
    remark(f"kept in {path}: `run` and `worker` use it where nothing else is set")
    return 0


def _sizes(model: "Model") -> str:
    config = model.config
    return f"{config.variant}, embedding {config.embedding_dim}, {config.heads} heads, {config.blocks} blocks"
