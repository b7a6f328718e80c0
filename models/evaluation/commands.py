"""The commands that measure models against labels: `ecgbatch model evaluate`, `compare` and `measure`."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ecgbatch.commands import PATH, as_json, columns_by_role, command
from ecgbatch.printing import print_mapping, print_note, print_rows
from ecgbatch.settings import EcgbatchError, load

if TYPE_CHECKING:
    from ecgbatch.models.evaluation.comparison import Comparison
    from ecgbatch.models.evaluation.conformal import Kept
    from ecgbatch.models.evaluation.figures import Evaluation
    from ecgbatch.models.evaluation.labels import Labels
    from ecgbatch.models.evaluation.predictions import Predictions

F = TypeVar("F", bound=Callable[..., Any])


def labelled(function: F) -> F:
    """Which labels predictions are compared with."""
    options = (
        click.option(
            "--labels",
            type=PATH,
            required=True,
            metavar="FILE.csv|ARCHIVE",
            help="ptbxl_database.csv, your own, or an archive whose headers have SNOMED CT codes (#Dx:).",
        ),
        click.option(
            "--columns",
            metavar="path=NAME,CLASS=NAME,...",
            callback=lambda _context, _option, text: columns_by_role(text),
            help="Your own table's columns for path, age, sex, fold and the model's classes, if named otherwise.",
        ),
        click.option("--fold", type=int, metavar="N", help="The records of one fold; without it all count."),
        click.option(
            "--all-records", is_flag=True, help="Of PTB-XL and archives also those without a superclass, as five zeros."
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


@command("evaluate", example="ecgbatch model evaluate 1 --labels /data/ptb-xl/ptbxl_database.csv --fold 10")
@click.argument("job", type=int, help="The job's id.")
@labelled
@as_json
@click.option(
    "--page",
    type=PATH,
    metavar="FILE.html",
    help="Write a page with figures and pictures too (needs the extra `evaluation`).",
)
def evaluate(
    job: int,
    labels: Path,
    columns: dict[str, str],
    fold: int | None,
    all_records: bool,
    as_json: bool,
    page: Path | None,
) -> None:
    """Compare a job's predictions with labels.

    The labels are those of ptbxl_database.csv, beside which must lie scp_statements.csv, where records without a
    superclass are left out, or count as five zeros with --all-records; or a table of your own with a column path and
    one of 0 and 1 for each class of the model that it tells; or those in the headers of the job's own archive, SNOMED
    CT codes as the PhysioNet/CinC challenges have them, where records are also left out whose codes leave a superclass
    open. Gives AUC, average precision, F1, precision, recall and calibration error per class, macro and micro, and by
    age and sex, with 95 % bootstrap intervals.
    """
    os.environ["OMP_NUM_THREADS"] = "1"  # sums in one order, so the same digits; set before numpy comes
    from ecgbatch.models.evaluation import conformal, figures

    known, [found] = _predictions([job], labels, columns, fold, all_records)
    evaluation = figures.evaluate(found.records, found.probabilities, found.model.thresholds, known.classes)
    about = {"job": job, "model": str(found.model), "fingerprint": found.model.fingerprint}
    about |= {"labels": labels.name, "labels_sha256": known.sha256, "fold": fold}
    about |= {"without_prediction": found.without_prediction, "left_out": known.left_out}
    if page is not None:
        from ecgbatch.models.evaluation.page import write_page

        write_page(page, about, evaluation, found)
    limits, uncertain = conformal.kept(
        figures.labels_of(found.records), found.probabilities, known.classes, found.model.uncertain
    )
    if as_json:
        promise = {"uncertain": {"records": uncertain, "superclasses": [each.as_dict() for each in limits]}}
        print_mapping(about | evaluation.as_dict() | promise, as_json=True)
    else:
        _print_evaluation(about, evaluation)
        if limits:
            _print_limits(limits, uncertain, evaluation.records)
    print_note("research use only, never for diagnosis")


@command("compare", example="ecgbatch model compare 1 2 --labels /data/ptb-xl/ptbxl_database.csv --fold 10")
@click.argument("first", type=int, metavar="JOB", help="The first job's id.")
@click.argument("second", type=int, metavar="JOB", help="The second job's id: its figures less the first's are shown.")
@labelled
@as_json
def compare(
    first: int,
    second: int,
    labels: Path,
    columns: dict[str, str],
    fold: int | None,
    all_records: bool,
    as_json: bool,
) -> None:
    """Compare two jobs' predictions of the same records.

    Shows how the second's figures differ from the first's, with 95 % intervals of a paired bootstrap, and how many
    records change side at the models' thresholds; --json has each of them.
    """
    os.environ["OMP_NUM_THREADS"] = "1"  # as in evaluate
    from ecgbatch.models.evaluation import comparison
    from ecgbatch.models.evaluation.predictions import in_common

    known, jobs = _predictions([first, second], labels, columns, fold, all_records)
    records, *probabilities = in_common(*jobs)
    found = comparison.compare(
        records,
        known.classes,
        (probabilities[0], probabilities[1]),
        (jobs[0].model.thresholds, jobs[1].model.thresholds),
    )
    about: dict[str, Any] = {"first": f"job {first}, {jobs[0].model}", "second": f"job {second}, {jobs[1].model}"}
    about |= {"labels": labels.name, "labels_sha256": known.sha256, "fold": fold}
    if as_json:
        print_mapping(about | found.as_dict(), as_json=True)
    else:
        _print_comparison(about, found)
    print_note("research use only, never for diagnosis")


def _lead_sets(_context: click.Context, _option: click.Parameter, text: str | None) -> list[str] | None:
    """What --declare takes. Raises click.BadParameter for a name that is no lead set's."""
    from ecgbatch.records.leads import LEAD_SETS

    names = list(LEAD_SETS) if text == "all" else [name.strip() for name in (text or "").split(",") if name.strip()]
    if unknown := [name for name in names if name not in LEAD_SETS]:
        raise click.BadParameter(f"there is no lead set {unknown[0]!r}; there are {', '.join(LEAD_SETS)}")
    return None if text is None else names


@command("measure", example="ecgbatch model measure /data/ptb-xl --model xlstm-ecg:1.3.0")
@click.argument("archive", type=PATH, help="The archive's root, with ptbxl_database.csv.")
@click.option("--model", "wanted", metavar="NAME[:VERSION]", help="The model; default: ECGBATCH_MODEL.")
@click.option("--fold", type=int, default=9, show_default=True, metavar="N", help="The records of this fold.")
@click.option(
    "--declare",
    metavar="SET,...",
    callback=_lead_sets,
    help="Write it into the model's description, which then takes these lead sets (`all`: each there is).",
)
@as_json
def measure(archive: Path, wanted: str | None, fold: int, declare: list[str] | None, as_json: bool) -> None:
    """Measure a model on fewer leads and shorter records.

    Macro AUC, with 95 % bootstrap intervals, on the records of a fold that have a superclass: by all leads, by each
    lead set with the others silent, and by the first seconds. With --declare these figures go into the model's
    description, and the limits between which it is uncertain; from then on `--leads-missing score` takes these lead
    sets and rows are flagged `uncertain`. The fingerprint stays.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # set before numpy comes
    from ecgbatch.models.evaluation import fewer
    from ecgbatch.models.evaluation.ptbxl import labelled_records
    from ecgbatch.models.scorer import Scorer
    from ecgbatch.models.weights.registry import Registry

    settings = load()
    registry = Registry(settings.model_dir)
    model = registry.find(wanted or settings.model)
    if not model.tells_superclasses:
        raise EcgbatchError(f"{model} tells classes of its own, and PTB-XL's labels are of the superclasses")
    records = [record for record in labelled_records(archive / "ptbxl_database.csv") if record.fold == fold]
    if not records:
        raise EcgbatchError(f"{archive} has no record of fold {fold} with labels: choose another fold")
    scorer = Scorer(model, settings.device, settings.kernel)
    found = fewer.measure(scorer, archive, records, follow_links=settings.follow_links)
    about: dict[str, Any] = {"model": str(model), "fingerprint": model.fingerprint, "fold": fold}
    about |= {"records": len(records)}
    if as_json:
        figures = [less._asdict() | auc._asdict() for less, auc in found.macro_aucs.items()]
        print_mapping(about | {"macro_auc": figures, "declaration": found.declaration(declare or [])}, as_json=True)
    else:
        rows = [[less.lead_set or "all", f"{less.seconds:g}", str(auc)] for less, auc in found.macro_aucs.items()]
        _print_about(about)
        print_rows(["leads", "seconds", "macro auc"], rows)
    if declare is not None:
        registry.declare(model, **found.declaration(declare))
        print_note(f"{model} is declared for {', '.join(declare) or 'twelve leads only'}")


def _predictions(
    jobs: list[int], file: Path, columns: dict[str, str], fold: int | None, all_records: bool
) -> "tuple[Labels, list[Predictions]]":
    """The labels, of one fold if it is given, and what each job predicted for their records."""
    from ecgbatch.db.migrate import open_database
    from ecgbatch.models.evaluation.labels import read_labels
    from ecgbatch.models.evaluation.predictions import model_of, predictions
    from ecgbatch.models.weights.registry import Registry

    settings = load()
    registry, database = Registry(settings.model_dir), open_database(settings.database_url)
    with database.read() as connection:
        models = [model_of(connection, registry, job) for job in jobs]
    classes = tuple(name for name in models[0].labels if all(name in model.labels for model in models))
    if not classes:
        raise EcgbatchError(f"{' and '.join(map(str, models))} have no class in common: they cannot be compared")
    labels = read_labels(file, columns, not all_records, settings.follow_links, classes)
    if fold is not None:
        labels = replace(labels, records=[record for record in labels.records if record.fold == fold])
        if not labels.records:
            raise EcgbatchError(f"{file} has no record of fold {fold} with labels: choose another fold")
    with database.read() as connection:
        found = [predictions(connection, model, job, labels) for model, job in zip(models, jobs, strict=True)]
    for each in found:
        if each.remaining:
            print_note(f"job {each.job} is not finished: {each.remaining:,} of {each.total:,} records remain")
    return labels, found


def _print_evaluation(about: dict[str, Any], evaluation: "Evaluation") -> None:
    from ecgbatch.models.evaluation.bootstrap import RESAMPLES

    exact = {"records": evaluation.records, "exact_match": str(evaluation.exact_match)}
    intervals = {"intervals": f"95 %, from {RESAMPLES} bootstrap resamples of the records"}
    _print_about(about | exact | intervals)
    ranked, decided = ("auc", "average_precision", "f1"), ("precision", "recall", "calibration_error")
    rows = [
        [row, evaluation.positives.get(row), evaluation.thresholds.get(row)]
        + [str(figures[metric]) for metric in ranked]
        + [figures[metric].value for metric in decided]
        for row, figures in evaluation.figures.items()
    ]
    columns = ["class", "records", "threshold", *ranked, *decided]
    print_rows([column.replace("_", " ") for column in columns], rows)
    print()
    groups = [[g.by, g.name, g.records, *(str(g.figures[metric]) for metric in ranked)] for g in evaluation.groups]
    print_rows(["by", "group", "records", *(f"macro {metric.replace('_', ' ')}" for metric in ranked)], groups)


def _print_limits(limits: "list[Kept]", uncertain: int, records: int) -> None:
    print()
    columns = ["class", "uncertain from", "to", "records", "coverage with it", "without it", "of halves"]
    rows = [
        [
            of.superclass,
            of.low,
            of.high,
            of.uncertain,
            str(of.present),
            str(of.absent),
            "{:.4f} {:.4f}".format(*of.of_halves),
        ]
        for of in limits
    ]
    print_rows(columns, rows)
    print(f"uncertain of any: {uncertain:,} of {records:,} records; at least 0.9 of each kind are to be covered")


def _print_comparison(about: dict[str, Any], comparison: "Comparison") -> None:
    from ecgbatch.models.evaluation.bootstrap import RESAMPLES

    intervals = {"intervals": f"95 %, from {RESAMPLES} paired bootstrap resamples of the records"}
    _print_about(about | {"records": comparison.records} | intervals)
    shown, counts = ("auc", "average_precision", "f1", "calibration_error"), comparison.counts()
    rows = [
        [row, *(str(figures[metric]) for metric in shown), *counts.get(row, (None, None))]
        for row, figures in comparison.differences.items()
    ]
    differences = [f"difference of {metric.replace('_', ' ')}" for metric in shown]
    print_rows(["class", *differences, "now right", "now wrong"], rows)


def _print_about(about: dict[str, Any]) -> None:
    print_mapping({key.replace("_", " "): value for key, value in about.items() if value is not None})
    print()
