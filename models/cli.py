"""The commands about models: `ecgbatch model …`."""

import argparse
import os
import signal
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecgbatch.printing import print_mapping, print_rows, remark, say
from ecgbatch.settings import EcgbatchError, load

if TYPE_CHECKING:
    from ecgbatch.models.config import NetworkConfig
    from ecgbatch.models.evaluation.evaluation import Evaluation
    from ecgbatch.models.weights.registry import Model, Weights


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the verbs of this room."""
    verbs = commands.add_parser(
        "model", help="what there is about models", description="Lists, brings in, trains, measures and exports models."
    ).add_subparsers(metavar="COMMAND", required=True)
    add = verbs.add_parser(
        "add",
        help="bring in the weights of a Lightning checkpoint",
        description="Converts a Lightning checkpoint of the parallel xLSTM, once, to safetensors and a description in "
        "ECGBATCH_MODEL_DIR. Sizes, variant and layout are found from the weights; nothing in the file is run.",
    )
    add.add_argument("checkpoint", type=Path, metavar="FILE.ckpt", help="the checkpoint")
    _ask_what_it_is(add)
    add.set_defaults(run=run_add)
    download = verbs.add_parser(
        "download",
        help="get a Lightning checkpoint from Hugging Face, Google Drive or the web",
        description="Gets a Lightning checkpoint, checks its SHA-256, and brings its weights in as `model add` does. "
        "Hugging Face and Google Drive need huggingface_hub and gdown, which the extra `download` installs.",
    )
    download.add_argument("source", metavar="SOURCE", help="hf:OWNER/REPO/FILE[@REVISION], gdrive:ID or https://...")
    download.add_argument(
        "--sha256", required=True, metavar="HEX", help="the file's SHA-256; a file with another one is not kept"
    )
    _ask_what_it_is(download)
    download.set_defaults(run=run_download)
    train = verbs.add_parser(
        "train",
        help="train a model on PTB-XL",
        description="Trains a model on an archive that is laid out as PTB-XL at 100 Hz: folds 1 to 8 train it, fold 9 "
        "chooses its best epoch and its thresholds. Stopped, it goes on where it was at the next call. The model goes "
        "to ECGBATCH_MODEL_DIR, all else stays in the folder of the training: settings.json, epochs.csv, last.pt.",
    )
    train.add_argument("archive", type=Path, metavar="ARCHIVE", help="the archive's root, with ptbxl_database.csv")
    _ask_for_a_name(train)
    train.add_argument(
        "--recipe", required=True, metavar="RECIPE", help="a file of settings, or one that ships: xlstm-ecg-1.1.0"
    )
    train.add_argument("--folder", type=Path, required=True, help="where the training lies, new or to go on with")
    train.add_argument("--device", choices=["cpu", "cuda"], help="default: ECGBATCH_DEVICE")
    train.set_defaults(run=run_train)
    listing = verbs.add_parser(
        "list",
        help="list the models there are",
        description="Lists the models that ship and those that were added; the last is used unless another is named.",
    )
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(run=run_list)
    evaluate = verbs.add_parser(
        "evaluate",
        help="compare a job's predictions with labels",
        description="Compares what a job predicted with the labels of ptbxl_database.csv, beside which must lie "
        "scp_statements.csv: AUC, average precision, F1, precision, recall and calibration error per superclass, "
        "macro and micro, and by age and sex, with 95 % bootstrap intervals. Records without a superclass are left "
        "out.",
    )
    evaluate.add_argument("job", type=int, metavar="JOB", help="the job's id")
    evaluate.add_argument("--labels", type=Path, required=True, metavar="ptbxl_database.csv", help="the labels")
    evaluate.add_argument("--fold", type=int, metavar="N", help="the records of one fold; without it all are evaluated")
    evaluate.add_argument("--json", action="store_true", help="print JSON, with every interval")
    evaluate.add_argument(
        "--page",
        type=Path,
        metavar="FILE.html",
        help="draw ROC, precision-recall, calibration, confusion and co-occurrence too (needs the extra `evaluation`)",
    )
    evaluate.set_defaults(run=run_evaluate)
    export = verbs.add_parser(
        "export",
        help="write a model as one file that runs without ecgbatch",
        description="Writes the model of ECGBATCH_MODEL, or the newest one, as an ONNX or TorchScript file that takes "
        "`signal` (B, 1000, 12) and `metadata` (B, 2), age in years and sex, and gives `probabilities` (B, 5), for any "
        "number B of records. The file is compared with torch first, and not kept if it is off by more than 1e-5. "
        "ONNX needs the extra `export`.",
    )
    export.add_argument("file", type=Path, metavar="FILE", help="where to write it")
    export.add_argument("--format", required=True, choices=["onnx", "torchscript"], help="what kind of file")
    export.add_argument("--raw", action="store_true", help="let the file take mV at 100 Hz and do the cleaning as well")
    export.add_argument(
        "--int8", action="store_true", help="keep the matrices of an ONNX file in eight bits: a third of the size"
    )
    export.add_argument(
        "--check",
        type=Path,
        metavar="ARCHIVE",
        help="compare on records of this archive, up to 64 of ten seconds at 100 Hz; without it on made-up signals",
    )
    export.set_defaults(run=run_export)
    bench = verbs.add_parser(
        "bench",
        help="measure a model's speed on this machine",
        description="Measures records per second and milliseconds per stage of every kernel that can be had here, at "
        "several batch sizes, and keeps the number of processes and the batch size that are best in "
        "ECGBATCH_MODEL_DIR, where `run` and `worker` find them.",
    )
    bench.add_argument("--json", action="store_true", help="print JSON")
    bench.set_defaults(run=run_bench)


def _ask_what_it_is(parser: argparse.ArgumentParser) -> None:
    """What no checkpoint says of itself."""
    parser.add_argument(
        "--normalization",
        type=Path,
        metavar="FILE.npz",
        help="normalization_params.npz of its training; default: the published values",
    )
    _ask_for_a_name(parser)


def _ask_for_a_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", required=True, help="what to call the model")
    parser.add_argument("--version", required=True, help="its version; a pair of name and version stays what it is")


def run_add(args: argparse.Namespace) -> int:
    from ecgbatch.models.weights.checkpoint import read_checkpoint

    return _add(args, *read_checkpoint(args.checkpoint))


def run_download(args: argparse.Namespace) -> int:
    from ecgbatch.models.weights.download import download

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what has come so far is removed, as on Ctrl-C
    return _add(args, *download(args.source, args.sha256))


def _add(args: argparse.Namespace, config: "NetworkConfig", weights: "Weights") -> int:
    """Adds what a checkpoint held as the model that was named."""
    from ecgbatch.models.preprocessing import Normalization, load_normalization
    from ecgbatch.models.weights import registry

    normalization = load_normalization(args.normalization) if args.normalization else Normalization()
    _print_added(registry.add(args.name, args.version, config, weights, normalization))
    return 0


def _print_added(model: "Model") -> None:
    say(f"{model.name}:{model.version}  {_sizes(model)}  fingerprint {model.fingerprint[:12]}  in {model.folder}")


def run_train(args: argparse.Namespace) -> int:
    from ecgbatch.models.training import training
    from ecgbatch.models.weights import registry

    settings, device = training.load_recipe(args.recipe), args.device or load().device
    if device == "cuda":
        from ecgbatch.models.kernels.cuda import require_gpu

        require_gpu()
    ready = training.prepare(args.archive, args.folder, remark)
    run = training.Training(settings, args.folder, *ready, device)
    if not run.ended:
        registry.check_free(args.name, args.version)  # before the hours, not after them
    run.run(remark)
    _print_added(run.keep(args.name, args.version))
    epoch, macro_auc, *_ = run.best
    print(f"epoch {epoch} of {run.step // run.steps_per_epoch}, macro AUC {macro_auc:.4f} on fold 9")
    return 0


def run_list(args: argparse.Namespace) -> int:
    from ecgbatch.models.weights import registry

    models = registry.available()
    if args.json:
        keys = list(models[-1].description) if models else []
        found = ([*(m.description.get(key) for key in keys), str(m.folder)] for m in models)
        print_rows([*keys, "folder"], found, as_json=True)
        return 0
    columns = ["name", "version", "network", "fingerprint", "folder"]
    print_rows(columns, [(m.name, m.version, _sizes(m), m.fingerprint[:12], str(m.folder)) for m in models])
    return 0


def run_evaluate(args: argparse.Namespace) -> int:
    os.environ["OMP_NUM_THREADS"] = "1"  # sums in one order, so the same digits; set before numpy comes
    import numpy as np

    from ecgbatch.db import jobs
    from ecgbatch.db.migrate import open_database
    from ecgbatch.models.evaluation.evaluation import evaluate
    from ecgbatch.models.evaluation.labels import labelled_records
    from ecgbatch.models.weights import registry

    labelled = [record for record in labelled_records(args.labels) if args.fold in (None, record.fold)]
    if not labelled:
        raise EcgbatchError(f"{args.labels} has no record of fold {args.fold} with a superclass: choose another fold")
    paths = {record.path for record in labelled}
    with open_database(load().database_url).read() as connection:
        [progress] = jobs.progress(connection, args.job)
        model = registry.by_fingerprint(jobs.model_fingerprint(connection, args.job))
        found = {path: values for path, values in jobs.probabilities(connection, args.job) if path in paths}
    records = [record for record in labelled if record.path in found]
    if not records:
        raise EcgbatchError(
            f"job {args.job} has predictions for none of the {len(labelled):,} records with labels: "
            "it must be of PTB-XL at 100 Hz, under the paths in the column filename_lr"
        )
    if progress.remaining:
        remark(f"job {args.job} is not finished: {progress.remaining:,} of {progress.total:,} records remain")
    probabilities = np.array([found[record.path] for record in records])
    evaluation = evaluate(records, probabilities, model.thresholds)
    about = {"job": args.job, "model": f"{model.name}:{model.version}", "fingerprint": model.fingerprint}
    about |= {"labels": args.labels.name, "fold": args.fold, "without_prediction": len(labelled) - len(records)}
    if args.page is not None:
        from ecgbatch.models.evaluation.page import write_page

        write_page(args.page, about, evaluation, records, probabilities)
    if args.json:
        print_mapping(about | evaluation.as_dict(), as_json=True)
    else:
        _print_evaluation(about, evaluation)
    remark("research use only, never for diagnosis")
    return 0


def _print_evaluation(about: dict[str, Any], evaluation: "Evaluation") -> None:
    from ecgbatch.models.evaluation.evaluation import RESAMPLES

    exact = {"records": evaluation.records, "exact_match": str(evaluation.exact_match)}
    intervals = {"intervals": f"95 %, from {RESAMPLES} bootstrap resamples of the records"}
    summary = (about | exact | intervals).items()
    print_mapping({key.replace("_", " "): value for key, value in summary if value is not None})
    print()
    ranked, decided = ("auc", "average_precision", "f1"), ("precision", "recall", "calibration_error")
    rows = [
        [row, evaluation.positives.get(row), evaluation.thresholds.get(row)]
        + [str(figures[metric]) for metric in ranked]
        + [figures[metric].value for metric in decided]
        for row, figures in evaluation.figures.items()
    ]
    columns = ["superclass", "records", "threshold", *ranked, *decided]
    print_rows([column.replace("_", " ") for column in columns], rows)
    print()
    groups = [[g.by, g.name, g.records, *(str(g.figures[metric]) for metric in ranked)] for g in evaluation.groups]
    print_rows(["by", "group", "records", *(f"macro {metric.replace('_', ' ')}" for metric in ranked)], groups)


def run_export(args: argparse.Namespace) -> int:
    from ecgbatch.models.export.export import export
    from ecgbatch.models.weights import registry

    model = registry.find(load().model)
    exported = export(model, args.file, args.format, raw=args.raw, int8=args.int8, archive=args.check)
    print(
        f"{args.file}  {model.name}:{model.version}  fingerprint {model.fingerprint[:12]}  "
        f"{exported.size / 1e6:.2f} MB  within {exported.difference:.1e} of torch on {exported.records} records"
    )
    return 0


def run_bench(args: argparse.Namespace) -> int:
    os.environ["OMP_NUM_THREADS"] = "1"  # one thread, as in a worker process; set before numpy comes
    from ecgbatch.models import bench
    from ecgbatch.models.weights import registry

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
    sizes = f"{config.variant}, embedding {config.embedding_dim}, {config.heads} heads, {config.blocks} blocks"
    return f"{sizes}, patch {config.patch}"
