"""The commands that draw a record: plot."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ecgbatch.commands import PATH, command, of_a_record
from ecgbatch.printing import print_note, say
from ecgbatch.settings import EcgbatchError, load

if TYPE_CHECKING:
    from ecgbatch.models.score_files import Score
    from ecgbatch.models.scorer import Scorer
    from ecgbatch.records.recording import Recording

in_rows = click.option("--rows", is_flag=True, help="One lead a row, 12x1; default: 3x4 and a rhythm strip.")


@command(example="ecgbatch plot 00001_lr.hea --output 00001.png")
@click.argument("record", help="A file of any format; FILE::ID for one record of many.")
@click.option(
    "--output", type=PATH, required=True, help="The picture: .svg, .png or .pdf; one that is there is replaced."
)
@of_a_record
@in_rows
@click.option("--raw", is_flag=True, help="Draw what was recorded; default: what was scored, after the filters.")
def plot(
    record: str, output: Path, age: float | None, sex: int | None, wanted: str | None, rows: bool, raw: bool
) -> None:
    """Draw a record's twelve leads on ECG paper, with its scores.

    25 mm/s and 10 mm/mV, at true scale; a record of larger waves is drawn at half the gain or less, which the sheet
    says. Its head has the probabilities, the model's thresholds, flags, and what was scored by which model. Needs the
    extra `plot`.
    """
    from ecgbatch.models.preprocessing import filtered
    from ecgbatch.viewer.saving import saved
    from ecgbatch.viewer.sheet import Sheet, draw, kind_of

    kind = kind_of(output)
    scorer, recording, score = _scored(record, age, sex, wanted)
    signal = recording.signal if raw else filtered(recording.signal[None])[0]
    shown = "as recorded, at 100 Hz" if raw else "as scored: band-pass 0.5–40 Hz"
    with saved(output) as file:
        draw(Sheet(signal, shown, recording, score, scorer.model, rows), file, kind)
    say(f"{output}: {record}, scored by {scorer.model}")
    print_note("research use only, never for diagnosis")


def _scored(record: str, age: float | None, sex: int | None, wanted: str | None) -> "tuple[Scorer, Recording, Score]":
    """What `ecgbatch score` does with one file."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # set before numpy comes
    from ecgbatch.models.score_files import read_file, score_recording
    from ecgbatch.models.scorer import Scorer
    from ecgbatch.models.weights.registry import Registry
    from ecgbatch.records.recording import RecordError

    settings = load()
    scorer = Scorer(Registry(settings.model_dir).find(wanted or settings.model), settings.device, settings.kernel)
    try:
        recording = read_file(record, min_seconds=settings.min_seconds, follow_links=settings.follow_links)
        return scorer, recording, score_recording(scorer, recording, record, age, sex)
    except RecordError as error:
        raise EcgbatchError(f"{record}: {error}") from None
