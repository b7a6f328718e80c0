"""A job as one HTML page that needs nothing else: what ran, what came of it, and the records worth a look, drawn."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from importlib.metadata import version
from pathlib import Path
from string import Template

from ecgbatch import pages
from ecgbatch.db.outcomes import as_shown
from ecgbatch.db.overview import (
    HIGHEST_OF_ARCHIVES,
    LOWEST_OF_ARCHIVES,
    TYPICAL_OF_ARCHIVES,
    FailedFor,
    doubt_about,
)
from ecgbatch.db.reports import Progress
from ecgbatch.db.scored import About, Rate, Scored
from ecgbatch.models.config import meaning_of
from ecgbatch.models.preprocessing import filtered
from ecgbatch.records.leads import LEAD_SETS
from ecgbatch.records.reading import read
from ecgbatch.records.recording import RecordError
from ecgbatch.settings import Settings
from ecgbatch.viewer import inline
from ecgbatch.viewer.summary import GROUPS, Summary
from ecgbatch.viewer.words import FLAGS, REASONS, moment, name_of, person

STYLE = (
    inline.STYLE
    + """\
.bars rect { fill: var(--mark) } .bars path { stroke-width: .6 } .bars text { font-size: 5px; fill: var(--soft) }
figure { margin: 1.2rem 0 } figcaption { margin-bottom: .3rem } .panels div { flex: 1 1 9rem; max-width: 14rem }
.ends { display: flex; justify-content: space-between }
"""
)

PAGE = Template("""\
$head$grid<h1>$title</h1>
<p class="notice">For research use only, never for diagnosis.</p>
<p>$about</p>
$warning
<div class="tiles">$tiles</div>
<h2>Classes</h2>
<p class="small">How often each probability came out: from 0 to 1 in $bins bins, the line is the model's threshold.
A record may have several classes or none.</p>
<div class="panels">$distributions</div>
<div class="wide">$classes</div>
<h2>By age and sex</h2>
<p class="small">The share of each group's records with the class; groups without records are left out.</p>
<div class="wide">$groups</div>
<h2>Amplitude</h2>
<p>$amplitude</p>
<h2>Rate</h2>
$rate
<h2>What failed</h2>
<div class="wide">$failures</div>
<h2>What was mended, filled in or looks implausible</h2>
<div class="wide">$flags</div>
<h2>Records</h2>
<p class="small">As scored: after the filters, 0.5–40 Hz.</p>
$records
<h2>Where this comes from</h2>
<div class="wide">$provenance</div>
</body>
</html>
""")

Draw = Callable[[Scored], str]


@dataclass(frozen=True)
class Job:
    """All that the page is made of; `amplitude` is the records' median, in mV."""

    about: About
    progress: Progress
    summary: Summary
    failures: Sequence[FailedFor]
    amplitude: float | None
    rate: Rate | None


def page_of(job: Job, draw: Draw) -> str:
    """The page; `draw` makes a record a picture, or HTML that says why there is none."""
    title = f"{job.about.archive} by {job.about.model}"
    doubt = doubt_about(job.amplitude)
    return PAGE.substitute(
        head=pages.head(title, STYLE),
        grid=inline.GRID,
        title=escape(title),
        about=escape(_ran(job)),
        warning="" if doubt is None else f'<p class="notice">{escape(doubt)}</p>',
        tiles=_tiles(job),
        bins=job.summary.distributions.shape[1],
        distributions=_distributions(job),
        classes=_classes(job),
        groups=_groups(job.summary),
        amplitude=escape(_amplitude(job.amplitude)),
        rate=_rate(job.rate),
        failures=_failures(job.failures),
        flags=_flags(job.summary),
        records="\n".join(_records(job, draw)) or "<p>None was scored.</p>",
        provenance=_provenance(job),
    )


def drawer(settings: Settings, root: Path) -> Draw:
    """Reads records again to draw them; one that cannot be read, or has changed, is said to be so."""
    links = settings.follow_links

    def draw(record: Scored) -> str:
        try:
            recording = read(
                root, record.path, min_seconds=settings.min_seconds, follow_links=links, lead_sets=LEAD_SETS
            )
        except RecordError as error:
            return f"<p>It cannot be drawn: {escape(str(error))}</p>"
        changed = recording.sha256 != record.input_sha256
        said = '<p class="notice">The file has changed since it was scored.</p>' if changed else ""
        return f'{said}<div class="wide">{inline.ecg(filtered(recording.signal[None])[0], record.path)}</div>'

    return draw


def _ran(job: Job) -> str:
    progress, times = job.progress, job.about
    ran = f"Job {progress.job_id} is {progress.state}; it was made on {moment(times.created_at)}"
    started = "" if times.started_at is None else f", began on {moment(times.started_at)}"
    finished = "" if times.finished_at is None else f" and was finished on {moment(times.finished_at)}"
    return f"{ran}{started}{finished}."


def _tiles(job: Job) -> str:
    progress = job.progress
    counts = {
        "records": progress.total,
        "scored": progress.scored,
        "failed": progress.failed,
        "to go": progress.remaining,
    }
    return "".join(f"<div>{escape(name)}<b>{count:,}</b></div>" for name, count in counts.items())


def _distributions(job: Job) -> str:
    thresholds = job.about.description["thresholds"]
    return "".join(
        f"<div>{escape(name_of(label))}{inline.bars(name_of(label), counts.tolist(), thresholds[label])}</div>"
        for label, counts in zip(job.summary.labels, job.summary.distributions, strict=True)
    )


def _classes(job: Job) -> str:
    thresholds, scored = job.about.description["thresholds"], job.summary.records
    rows = [
        [name_of(label), int(found), _share(found, scored), f"{thresholds[label]:.3f}"]
        for label, found in zip(job.summary.labels, job.summary.found, strict=True)
    ]
    return pages.table(["class", "records", "share", "threshold"], rows)


def _groups(summary: Summary) -> str:
    groups = [(f"{by} {name}", summary.groups[by, name]) for by, name in GROUPS if (by, name) in summary.groups]
    rows = [[name, group.records, *(_share(found, group.records) for found in group.found)] for name, group in groups]
    return pages.table(["group", "records", *(meaning_of(label) for label in summary.labels)], rows)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else ""


def _amplitude(amplitude: float | None) -> str:
    usual = (
        f"Of sound archives it is about {TYPICAL_OF_ARCHIVES:g} mV, between {LOWEST_OF_ARCHIVES:g} and "
        f"{HIGHEST_OF_ARCHIVES:g}; anything else means that gains or units are wrong."
    )
    if amplitude is None:
        return f"None of the records' amplitudes was measured. {usual}"
    return f"The records' typical (median) amplitude is {amplitude:.2f} mV. {usual}"


def _rate(rate: Rate | None) -> str:
    if rate is None:
        return "<p>There is none to tell: all was scored at once, or by earlier jobs.</p>"
    rates = [records / rate.seconds for records in rate.records]
    said = [f"{at * rate.seconds:,.0f} s after it began: {each:,.0f} records/s" for at, each in enumerate(rates)]
    mean = sum(rate.records) / (rate.ended - rate.began).total_seconds()
    ends = "".join(f"<span>{escape(moment(time))}</span>" for time in (rate.began, rate.ended))
    return (
        f'<p class="small">Records per second from the first to the last that was scored: {mean:,.0f} on average, '
        f"{max(rates):,.0f} at most.</p>"
        f'{inline.course("records per second", rates, said)}<p class="small ends">{ends}</p>'
    )


def _failures(failures: Sequence[FailedFor]) -> str:
    rows = [[each.reason, each.records, REASONS.get(each.reason), each.path, each.detail] for each in failures]
    if not rows:
        return "<p>Nothing.</p>"
    words = ("meaning", "such as", "detail")
    return pages.table(["reason", "records", *words], rows, words=words)


def _flags(summary: Summary) -> str:
    rows = [[flag, records, FLAGS.get(flag)] for flag, records in summary.flags.most_common()]
    return pages.table(["flag", "records", "meaning"], rows, words=["meaning"]) if rows else "<p>Nothing.</p>"


def _records(job: Job, draw: Draw) -> Iterator[str]:
    """Each record once, with all that it stands for."""
    summary = job.summary
    chosen = [(f"highest probability of {name_of(label)}", record) for label, record in summary.highest.items()]
    chosen += [("most uncertain: a probability is next to its threshold", record) for record in summary.uncertain]
    chosen += [(f"flagged {flag}", record) for flag, record in summary.flagged.items()]
    reasons: dict[str, list[str]] = {}
    records = {record.path: record for _, record in chosen}
    for reason, record in chosen:
        reasons.setdefault(record.path, []).append(reason)
    for path, record in records.items():
        said = _said_of(summary.labels, record)
        caption = f'<b>{escape(path)}</b>: {escape("; ".join(reasons[path]))}<br><span class="small">{said}'
        yield f"<figure><figcaption>{caption}</span></figcaption>{draw(record)}</figure>"


def _said_of(labels: Sequence[str], record: Scored) -> str:
    probabilities = zip(labels, record.probabilities, strict=True)
    said = ", ".join(f"{as_shown(label)} {probability:.3f}" for label, probability in probabilities)
    parts = [person(record.age, record.sex), said, ", ".join(record.flags)]
    return escape(" · ".join(filter(None, parts)))


def _provenance(job: Job) -> str:
    rows = [
        ("job", str(job.progress.job_id)),
        ("archive", job.about.root),
        ("model", job.about.model),
        ("fingerprint of the model", job.about.fingerprint),
        ("ecgbatch", version("ecgbatch")),
        ("page made", moment(datetime.now(UTC))),
    ]
    return pages.facts(rows)
