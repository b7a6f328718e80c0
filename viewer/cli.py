"""The commands that score and show records and jobs: score, plot, explain, report, app."""

import os
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ecgbatch.commands import PATH, as_json, command, of_a_record
from ecgbatch.printing import print_mapping, print_note, print_rows, say
from ecgbatch.settings import EcgbatchError, load

if TYPE_CHECKING:
    from ecgbatch.models.score_files import Score
    from ecgbatch.models.scorer import Scorer
    from ecgbatch.records.recording import Recording
    from ecgbatch.viewer.occlusion import Occlusion

    ScoreFile = Callable[[str], tuple[Recording, Score]]

AS_SCORED = "as scored: band-pass 0.5–40 Hz, notch 50 Hz"

in_rows = click.option("--rows", is_flag=True, help="One lead a row, 12x1; default: 3x4 and a rhythm strip.")


@command(example="ecgbatch score 00001_lr.hea --age 56 --sex female")
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", help="A file of any format; FILE::ID for one record of many."
)
@of_a_record
@click.option("--plot", "pictures", type=PATH, metavar="FOLDER", help="Also draw each, as `plot` does: a .png there.")
@as_json
def score(files: tuple[str, ...], pictures: Path | None, as_json: bool, **how: Any) -> int:
    """Score a few files here and now.

    It needs no server and no database, and keeps nothing: probabilities, what is found and flags are printed. Ends with
    status 3 when a file could not be scored.
    """
    from ecgbatch.records.recording import RecordError

    if pictures is not None:
        _need_folder(pictures)
    scorer, score_file = _scorer(**how)
    scores, failures = [], []
    for file in files:
        try:
            recording, found = score_file(file)
        except RecordError as error:
            failures.append((file, error))
            continue
        scores.append(found)
        if pictures is not None:
            _draw_into(pictures, scorer, recording, found)
    if as_json:
        used = scorer.model
        about = {"model": used.name, "version": used.version, "fingerprint": used.fingerprint}
        failed = [{"path": file, "reason": why.reason, "detail": why.detail} for file, why in failures]
        print_mapping(about | {"scores": [asdict(score) for score in scores], "failures": failed}, as_json=True)
    else:
        _print_scores(scores)
        for file, why in failures:
            print_note(f"{file}: {why}")
        print_note(f"by {scorer.model}; research use only, never for diagnosis")
    return 3 if failures else 0


@command(example="ecgbatch plot 00001_lr.hea --output 00001.png")
@click.argument("record", help="A file of any format; FILE::ID for one record of many.")
@click.option(
    "--output", type=PATH, required=True, help="The picture: .svg, .png or .pdf; one that is there is replaced."
)
@of_a_record
@in_rows
@click.option("--raw", is_flag=True, help="Draw what was recorded; default: what was scored, after the filters.")
def plot(record: str, output: Path, rows: bool, raw: bool, **how: Any) -> None:
    """Draw a record's twelve leads on ECG paper, with its scores.

    25 mm/s and 10 mm/mV, at true scale; a record of larger waves is drawn at half the gain or less, which the sheet
    says. Its head has the probabilities, the model's thresholds, flags, and what was scored by which model. Needs the
    extra `plot`.
    """
    from ecgbatch.models.preprocessing import filtered
    from ecgbatch.viewer.saving import saved
    from ecgbatch.viewer.sheet import Sheet, draw, kind_of

    kind = kind_of(output)
    scorer, recording, score = _scored(record, how)
    signal = recording.signal if raw else filtered(recording.signal[None])[0]
    shown = "as recorded, at 100 Hz" if raw else AS_SCORED
    with saved(output) as file:
        draw(Sheet(signal, shown, recording, score, scorer.model, rows), file, kind)
    say(f"{output}: {record}, scored by {scorer.model}")
    print_note("research use only, never for diagnosis")


@command(example="ecgbatch explain 00001_lr.hea --superclass mi --output 00001.png")
@click.argument("record", help="A file of any format; FILE::ID for one record of many.")
@click.option("--output", type=PATH, help="Also draw it: .svg, .png or .pdf; one that is there is replaced.")
@click.option(
    "--superclass",
    metavar="NAME",
    help="Of the model's classes, whose strongest half seconds are told and drawn; default: the most probable's.",
)
@of_a_record
@as_json
def explain(
    record: str,
    output: Path | None,
    superclass: str | None,
    as_json: bool,
    **how: Any,
) -> None:
    """Tell what a record's score hangs on.

    How each probability changes when a lead, or half a second of a lead, is silenced. It is about this model, not about
    the heart: no cause, no proof, and no sum, for leads repeat each other.
    """
    from ecgbatch.models.preprocessing import filtered
    from ecgbatch.viewer import occlusion, shading
    from ecgbatch.viewer.saving import saved
    from ecgbatch.viewer.sheet import Sheet, draw, kind_of

    kind = None if output is None else kind_of(output)
    scorer, recording, score = _scored(record, how)
    if superclass is not None and superclass not in score.probabilities:
        there = ", ".join(score.probabilities)
        raise click.BadParameter(f"{scorer.model} tells {there}, not {superclass!r}", param_hint="--superclass")
    signal = filtered(recording.signal[None])[0]
    found = occlusion.occlude(scorer, signal, scorer.metadata(score.age, score.sex).values)
    label = superclass or max(score.probabilities, key=score.probabilities.__getitem__)
    if output is not None and kind is not None:
        notes = shading.legend(found, label)
        sheet = Sheet(signal, AS_SCORED, recording, score, scorer.model, in_rows=True, notes=notes)
        with saved(output) as file:
            draw(sheet, file, kind, shading.shade(found, label))
    _print_occlusion(score, found, label, as_json)
    for said in (occlusion.IS, occlusion.IS_NOT, f"by {scorer.model}; research use only, never for diagnosis"):
        print_note(said)


@command(example="ecgbatch report 1 job1.html")
@click.argument("job", type=int, help="The job's id.")
@click.argument("file", type=PATH, metavar="FILE.html", help="The page; one that is there is replaced.")
def report(job: int, file: Path) -> None:
    """Write one page about a job: counts, distributions, ECGs.

    What ran on what, with which model and when; what failed and what was flagged; probabilities, by age and sex too;
    the archive's amplitude; the highest, the most uncertain and the flagged records, which are read again to be drawn.
    The page needs no other file, and nothing of it is fetched from anywhere.
    """
    from ecgbatch.db import overview, reports, scored
    from ecgbatch.db.classes import model_of, thresholds_of
    from ecgbatch.db.migrate import open_database
    from ecgbatch.records.paths import on_disk
    from ecgbatch.viewer.report import Job, drawer, page_of
    from ecgbatch.viewer.saving import saved
    from ecgbatch.viewer.summary import summarise

    settings = load()
    with open_database(settings.database_url).read() as connection:
        [progress] = reports.progress(connection, job)
        about = scored.about(connection, job)
        thresholds = thresholds_of(connection, model_of(connection, job))
        summary = summarise(scored.scored(connection, job), thresholds)
        failures = overview.failures_by_reason(connection, job)
        found = Job(
            about,
            progress,
            summary,
            failures,
            overview.typical_amplitude(connection, job),
            scored.rate_of(connection, job),
        )
    with saved(file) as stream:
        stream.write(page_of(found, drawer(settings, Path(on_disk(about.root)[0]))).encode())
    say(f"{file}: job {job}, {progress.scored:,} scored, {progress.failed:,} failed")
    print_note("research use only, never for diagnosis")


@command(example="ecgbatch app")
def app() -> None:
    """Look at jobs, records and dropped files in the browser.

    Serves pages on 127.0.0.1: jobs as they run, their records by superclass, probability, flag or path, each drawn with
    its scores, what they hang on and where they come from; two jobs compared; and files that are dropped, which are
    scored here and now. It only reads the database. On an address that others reach it wants a password:
    ECGBATCH_APP_PASSWORD_FILE.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # set before numpy comes
    from ecgbatch.viewer.app.server import run_app

    run_app(load())


def _need_folder(folder: Path) -> None:
    from ecgbatch.viewer.sheet import kind_of

    kind_of(Path("a.png"))  # says so now, not after the scoring, where matplotlib is missing
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EcgbatchError(f"cannot make the folder {folder}: {error.strerror or error}") from None


def _draw_into(folder: Path, scorer: "Scorer", recording: "Recording", score: "Score") -> None:
    """Draws a record as NAME.png; of several of one name each gets its own."""
    from ecgbatch.models.preprocessing import filtered
    from ecgbatch.viewer.saving import saved
    from ecgbatch.viewer.sheet import Sheet, draw

    name = Path(score.path).name.removesuffix(".hea").replace("::", "-").replace(os.sep, "-")
    picture = next(path for at in count(1) if not (path := folder / f"{name}{f'-{at}' if at > 1 else ''}.png").exists())
    with saved(picture) as file:
        draw(Sheet(filtered(recording.signal[None])[0], AS_SCORED, recording, score, scorer.model), file, "png")


def _print_scores(scores: "list[Score]") -> None:
    from ecgbatch.db.outcomes import as_shown

    if scores:
        columns = ["file", *scores[0].probabilities, "found", "flags"]
        rows = [
            [
                score.path,
                *score.probabilities.values(),
                " ".join(map(as_shown, score.superclasses)),
                " ".join(score.flags),
            ]
            for score in scores
        ]
        print_rows(columns, rows)


def _print_occlusion(score: "Score", found: "Occlusion", label: str, as_json: bool) -> None:
    from ecgbatch.records.leads import LEADS

    strongest = [f"most_of_{label}_from_s", "changes_it_by"]
    columns = ["lead", *score.probabilities, *strongest]
    pieces = found.strongest(label)
    rows = [[lead, *changes, *pieces[at]] for at, (lead, changes) in enumerate(zip(LEADS, found.by_lead.tolist()))]
    if as_json:
        pieces_of = dict(zip(LEADS, found.by_piece.tolist(), strict=True))
        leads = [dict(zip(columns, row, strict=True)) for row in rows]
        print_mapping(asdict(score) | {"leads": leads, "half_seconds": pieces_of}, as_json=True)
        return
    say(f"{score.path}: " + ", ".join(f"{name} {value:.3f}" for name, value in score.probabilities.items()))
    print_rows(columns, rows)


def _scored(record: str, how: dict[str, Any]) -> "tuple[Scorer, Recording, Score]":
    """What `ecgbatch score` does with one file."""
    from ecgbatch.records.recording import RecordError

    scorer, score_file = _scorer(**how)
    try:
        return scorer, *score_file(record)
    except RecordError as error:
        raise EcgbatchError(f"{record}: {error}") from None


def _scorer(age: float | None, sex: int | None, wanted: str | None, leads_missing: str) -> "tuple[Scorer, ScoreFile]":
    """The resident model, and what reads and scores a file by it; takes the options `of_a_record`."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # set before numpy comes
    from ecgbatch.models.score_files import read_file, score_recording
    from ecgbatch.models.scorer import Scorer
    from ecgbatch.models.weights.registry import Registry

    settings = load()
    scorer = Scorer(Registry(settings.model_dir).find(wanted or settings.model), settings.device, settings.kernel)
    lead_sets = scorer.lead_sets if leads_missing == "score" else None
    read = partial(read_file, min_seconds=settings.min_seconds, follow_links=settings.follow_links, lead_sets=lead_sets)

    def score_file(file: str) -> "tuple[Recording, Score]":
        recording = read(file)
        return recording, score_recording(scorer, recording, file, age, sex)

    return scorer, score_file
