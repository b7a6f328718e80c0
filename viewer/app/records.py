"""The pages about one record: of a job, or of an upload; and what its score hangs on."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode

from ecgbatch.db import browse, record, scored
from ecgbatch.db.browse import NotThere, Place
from ecgbatch.db.classes import thresholds_of
from ecgbatch.db.record import Said, Whole
from ecgbatch.models.scorer import Scorer
from ecgbatch.records.recording import SAMPLING_RATE, RecordError, Recording, flag_of
from ecgbatch.settings import EcgbatchError
from ecgbatch.viewer import inline, shading
from ecgbatch.viewer.app.asked import Asked
from ecgbatch.viewer.app.handler import Handler
from ecgbatch.viewer.app.source import Source, as_scored
from ecgbatch.viewer.app.upload import Dropped, Upload
from ecgbatch.viewer.words import FLAGS, REASONS, moment, name_of, person

ABOUT_THE_MODEL = (
    "It is about this model, not about the heart; a part without a change may show the finding all the same."
)
Windows = list[tuple[float, dict[str, float]]]
LONGEST_NAME = 63
"""Of a class."""


@dataclass(frozen=True)
class Shown:
    """How the leads are drawn: one a row, as they were recorded, or with what the probability of a class hangs on."""

    rows: str = ""
    raw: str = ""
    explain: str = ""

    def address(self, base: str, **changes: str) -> str:
        values = {name: value for name, value in vars(replace(self, **changes)).items() if value}
        return base + ("&" if "?" in base else "?") + urlencode(values) if values else base


@dataclass
class Picture:
    """A record's leads as SVG, what is to be warned of, and what the shading says."""

    svg: str = ""
    warnings: list[str] = field(default_factory=list)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class View:
    """What the page of a record shows. Pairs are names and values; `scores` are name, probability, threshold."""

    base: str
    labels: tuple[str, ...]
    person: str
    picture: Picture
    scores: list[tuple[str, float, float]] = field(default_factory=list)
    flags: list[tuple[str, str]] = field(default_factory=list)
    provenance: list[tuple[str, str]] = field(default_factory=list)
    failure: str = ""
    others: list[Said] = field(default_factory=list)
    windows: Windows = field(default_factory=list)


class OfJob(Handler):
    """A record of a job."""

    async def answer(self, *arguments: str) -> None:
        job, recording = map(int, arguments)
        asked, shown = Asked.of(self.get_argument), shown_in(self)
        base = f"/jobs/{job}/records/{recording}"
        path, view = await self.score(_view_of, self.source, job, recording, base + asked.address(), shown)
        around = {"job": job, "back": f"/jobs/{job}{asked.address()}", "neighbours": (base, asked.address())}
        self.show("record.html", path, view=view, shown=shown, labels=view.labels, **around)


class Neighbour(Handler):
    """Leads on to the record after or before one, of those that were asked for."""

    async def answer(self, *arguments: str) -> None:
        job, recording, where = int(arguments[0]), int(arguments[1]), arguments[2]
        asked = Asked.of(self.get_argument)
        place = Place(after=recording) if where == "next" else Place(before=recording)
        found = await self.read(_neighbour, self.source, job, asked, place)
        page = f"/jobs/{job}" if found is None else f"/jobs/{job}/records/{found}"
        self.redirect(page + asked.address(), status=303)


class OfUpload(Handler):
    """The records of an upload, or one of them."""

    async def answer(self, *arguments: str) -> None:
        token, number = arguments
        upload: Upload | None = self.source.files.get(token)
        if upload is None:
            raise NotThere("these files were let go of: drop them again")
        if not number:
            return self.show("scored.html", "Scored files", upload=upload, token=token, labels=upload.labels)
        if int(number) >= len(upload.records):
            raise NotThere("there is no such record")
        dropped, shown = upload.records[int(number)], shown_in(self)
        base = f"/scored/{token}/{number}"
        view = await self.score(_view_of_dropped, self.source, upload, dropped, base, shown)
        back = f"/scored/{token}" if len(upload.records) > 1 else "/score"
        around = {"job": None, "back": back, "neighbours": None}
        return self.show("record.html", dropped.path, view=view, shown=shown, labels=view.labels, **around)


def shown_in(handler: Handler) -> Shown:
    """How the address asks for a record to be shown."""
    return Shown(**{name: handler.get_argument(name, "")[:LONGEST_NAME] for name in Shown.__dataclass_fields__})


def _check_explained(shown: Shown, labels: Collection[str]) -> None:
    """Raises EcgbatchError for a class that the model does not tell."""
    if shown.explain and shown.explain not in labels:
        raise EcgbatchError(f"explain is one of {', '.join(labels)}, not {shown.explain!r}")


def _view_of(source: Source, job_id: int, recording_id: int, base: str, shown: Shown) -> tuple[str, View]:
    with source.read() as connection:
        job = browse.job_of(connection, job_id)
        about = scored.about(connection, job_id)
        whole = record.record_of(connection, job_id, recording_id)
        windows = record.windows_of(connection, recording_id, job.model_id)
        labels = tuple(thresholds_of(connection, job.model_id))
    _check_explained(shown, labels)
    said = next((each for each in whole.said if each.model_id == job.model_id), None)
    picture = _picture_of(source, whole, said, shown)
    failure = whole.failure
    view = View(
        base,
        labels,
        person(whole.age, whole.sex),
        picture,
        [] if said is None else _scores(said.probabilities, said.thresholds),
        [] if said is None else _meanings(said.flags),
        _provenance(whole, said, about.model),
        "" if failure is None else f"{failure.reason} ({REASONS.get(failure.reason, '')}): {failure.detail}",
        [each for each in whole.said if each is not said],
        windows,
    )
    return whole.path, view


def _picture_of(source: Source, whole: Whole, said: Said | None, shown: Shown) -> Picture:
    """The record, read again; what has become of its file is told."""
    try:
        recording = source.recording(whole.root, whole.path)
    except RecordError as error:
        return Picture(warnings=[f"It cannot be drawn: {error}"])
    warnings = []
    if said is not None and recording.sha256 != said.input_sha256:
        warnings = ["The file has changed since it was scored."]
    if not shown.explain or said is None:
        return Picture(_drawn(recording, whole.path, shown), warnings)
    try:
        scorer = source.scorer(said.fingerprint)
    except EcgbatchError as error:
        return Picture(_drawn(recording, whole.path, shown), [*warnings, f"It cannot be explained: {error}"])
    return _explained(source, scorer, recording, (whole.age, whole.sex), whole.path, shown.explain, warnings)


def _view_of_dropped(source: Source, upload: Upload, dropped: Dropped, base: str, shown: Shown) -> View:
    recording, score = dropped.recording, dropped.score
    if recording is None or score is None:
        return View(base, upload.labels, "", Picture(), failure=dropped.error)
    _check_explained(shown, upload.labels)
    scorer = source.scorer(upload.fingerprint)
    about = (score.age, score.sex)
    if shown.explain:
        picture = _explained(source, scorer, recording, about, dropped.path, shown.explain, [])
    else:
        picture = Picture(_drawn(recording, dropped.path, shown))
    provenance = [
        ("format", f"{recording.format}, {len(recording.signal) / SAMPLING_RATE:g} s"),
        ("device", recording.device or ""),
        ("model", str(scorer.model)),
        ("fingerprint of the model", scorer.model.fingerprint),
        ("SHA-256 of the input", recording.sha256),
    ]
    scores = _scores(score.probabilities, scorer.model.thresholds)
    return View(base, upload.labels, person(*about), picture, scores, _meanings(score.flags), _known(provenance))


def _drawn(recording: Recording, path: str, shown: Shown) -> str:
    signal = recording.signal if shown.raw else as_scored(recording)
    return inline.ecg(signal, path, in_rows=bool(shown.rows))


def _explained(
    source: Source,
    scorer: Scorer,
    recording: Recording,
    about: tuple[float | None, int | None],
    path: str,
    label: str,
    warnings: list[str],
) -> Picture:
    found = source.explain(scorer, recording, *about)
    svg = inline.ecg(as_scored(recording), path, in_rows=True, explained=(found, label))
    return Picture(svg, warnings, (*shading.legend(found, label), ABOUT_THE_MODEL))


def _scores(probabilities: dict[str, float], thresholds: dict[str, float]) -> list[tuple[str, float, float]]:
    return [(name_of(label), probability, thresholds[label]) for label, probability in probabilities.items()]


def _meanings(flags: Sequence[str]) -> list[tuple[str, str]]:
    return [(flag, FLAGS.get(flag_of(flag), "")) for flag in flags]


def _provenance(whole: Whole, said: Said | None, model: str) -> list[tuple[str, str]]:
    rows: list[tuple[str, Any]] = [
        ("archive", f"{whole.archive}, {whole.root}"),
        ("record", whole.path),
        ("format", whole.format),
        ("device", whole.device),
        ("model", model),
    ]
    if said is not None:
        rows += [
            ("fingerprint of the model", said.fingerprint),
            ("SHA-256 of the input", said.input_sha256),
            ("scored", f"{moment(said.scored_at)} in job {said.job_id}, by worker {said.worker}"),
            ("amplitude", None if said.amplitude is None else f"{said.amplitude:.2f} mV"),
            ("residual of the limb leads", None if said.limb_residual is None else f"{said.limb_residual:.3f}"),
        ]
    return _known(rows)


def _known(rows: Sequence[tuple[str, Any]]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in rows if value]


def _neighbour(source: Source, job_id: int, asked: Asked, place: Place) -> int | None:
    with source.read() as connection:
        job = browse.job_of(connection, job_id)
        if asked.show == "failed":
            reason, text = asked.reason or None, asked.text or None
            failed = browse.failed_page(connection, job, reason, text, place, 1).rows
            return failed[0].id if failed else None
        wanted = asked.wanted(thresholds_of(connection, job.model_id))
        rows = browse.page(connection, job, wanted, place, 1).rows
        return rows[0].id if rows else None
