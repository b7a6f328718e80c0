"""The command that tunes a model: `ecgbatch model tune`."""

from pathlib import Path

import click

from ecgbatch.commands import PATH, columns_by_role, command
from ecgbatch.models.torch_extra import require_torch
from ecgbatch.printing import print_note, say
from ecgbatch.settings import load


def _classes(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    """What --classes takes. The superclasses, in whatever order, are those of the models that ship."""
    from ecgbatch.models.config import LABELS, check_classes

    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(","))
    check_classes(names)
    return LABELS if sorted(names) == sorted(LABELS) else names


@command("tune", example="ecgbatch model tune /data/mine --labels mine.csv --folder tuning --name mine --version 1")
@click.argument("archive", type=PATH, help="The archive's root.")
@click.option("--labels", type=PATH, required=True, metavar="FILE.csv", help="A column for each class, 0 or 1.")
@click.option(
    "--columns",
    metavar="path=NAME,CLASS=NAME,...",
    callback=lambda _context, _option, text: columns_by_role(text),
    help="The table's columns for path, age, sex, patient and the classes, if named otherwise.",
)
@click.option(
    "--classes",
    metavar="NAME,...",
    callback=_classes,
    help="What it is to learn, each a column of the labels; default: what the model tells.",
)
@click.option("--from", "wanted", metavar="NAME[:VERSION]", help="The model to begin with; default: ECGBATCH_MODEL.")
@click.option("--frozen", is_flag=True, help="Let only the classifier learn, not the features below it.")
@click.option("--epochs", type=click.IntRange(1), default=10, show_default=True, help="How often each record is seen.")
@click.option("--folder", type=PATH, required=True, help="Where the training lies, new or to go on with.")
@click.option("--name", required=True, help="What to call the model.")
@click.option("--version", required=True, help="Its version.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: ECGBATCH_DEVICE.")
def tune(
    archive: Path,
    labels: Path,
    columns: dict[str, str],
    classes: tuple[str, ...] | None,
    wanted: str | None,
    frozen: bool,
    epochs: int,
    folder: Path,
    name: str,
    version: str,
    device: str | None,
) -> None:
    """Let a model go on learning from your own labels.

    The labels are of the five superclasses, as `model evaluate` takes them, or of --classes of your own, for which the
    network gets a new last layer. One patient in five, of a table with the column patient, or else one record in five,
    chooses the epoch, the calibration and the thresholds; the others train. Records must be ten seconds long. The model
    goes to ECGBATCH_MODEL_DIR, and `run` uses it by its name. Stopped, it goes on where it was at the next call.
    """
    require_torch("training")
    from ecgbatch.models.evaluation.labels import read_labels
    from ecgbatch.models.training import tuning
    from ecgbatch.models.training.loop import Training
    from ecgbatch.models.weights.registry import Registry

    settings = load()
    registry, device = Registry(settings.model_dir), device or settings.device
    if device == "cuda":
        from ecgbatch.models.kernels.cuda import require_gpu

        require_gpu()
    model = registry.find(wanted or settings.model)
    classes = classes or model.labels
    how, known = tuning.settings_of(model, classes, frozen, epochs), read_labels(labels, columns, classes=classes)
    examples = tuning.examples_of(archive, known, classes, folder, device, print_note)
    run = Training(how, folder, examples, start=tuning.start_of(model, classes))
    if not run.ended:
        registry.check_free(name, version)
    run.run(print_note)
    tuned = run.keep(registry, name, version)
    about = {"from": model.fingerprint, "labels_sha256": known.sha256, "records": len(examples.labels)}
    registry.declare(tuned, tuned=about)
    say(f"{tuned}  fingerprint {tuned.fingerprint[:12]}  in {tuned.folder}")
    before = f", by {model} {tuning.macro_auc(model, examples):.4f}" if model.labels == classes else ""
    after = tuning.macro_auc(tuned, examples)
    print(f"macro AUC on the {len(examples.validation):,} records that validate: {after:.4f}{before}")
