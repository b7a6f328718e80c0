"""The commands about models: model add, model list."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from output import print_rows, remark

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


def _sizes(model: "Model") -> str:
    config = model.config
    return f"{config.variant}, embedding {config.embedding_dim}, {config.heads} heads, {config.blocks} blocks"
