"""What ecgbatch offers to Python: the functions that `import ecgbatch` has.

Each takes its settings as an argument; without them those of the environment (ECGBATCH_...) hold.
"""

import tempfile
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ecgbatch.settings import Settings, load

if TYPE_CHECKING:
    from ecgbatch.db.engine import Database
    from ecgbatch.db.reports import Progress
    from ecgbatch.models.score_files import Score
    from ecgbatch.models.scorer import Scorer
    from ecgbatch.models.weights.model import Model
    from ecgbatch.records.recording import Recording


def load_model(
    model: str | Path | None = None, *, normalization: Path | None = None, settings: Settings | None = None
) -> "Scorer":
    """A model that stays in memory, ready to score: `score(scorer, files)`, `score_signals(scorer, signals)`.

    `model` is NAME or NAME:VERSION; a folder with config.json and model.safetensors, as `ecgbatch model export --format
    hub` makes it, given as a Path or with a slash; `hf:OWNER/REPO[@REVISION]`, which holds the same two files; or the
    path of a Lightning checkpoint (.ckpt), for which `normalization` may be the `normalization_params.npz` of its
    training. Without a model it is the default. Raises EcgbatchError for what is not there or is no model.
    """
    from ecgbatch.models.scorer import Scorer
    from ecgbatch.models.weights import hub
    from ecgbatch.models.weights.registry import Registry

    settings = settings or load()
    kind = (settings.device, settings.kernel, settings.batch_size)
    with tempfile.TemporaryDirectory(prefix="ecgbatch-model-") as folder:
        if str(model).endswith(".ckpt"):
            found = _of_checkpoint(Path(str(model)), normalization, Path(folder))
        elif str(model).startswith(hub.HUB):
            found = hub.load_repository(str(model), Path(folder))
        elif isinstance(model, Path) or "/" in str(model):
            found = hub.load_folder(Path(str(model)).expanduser(), Path(folder))
        else:
            found = Registry(settings.model_dir).find(settings.model if model is None else model)
        return Scorer(found, *kind)


def _of_checkpoint(checkpoint: Path, normalization: Path | None, into: Path) -> "Model":
    from ecgbatch.models.preprocessing import Normalization
    from ecgbatch.models.weights.checkpoint import read_checkpoint
    from ecgbatch.models.weights.normalization_file import load_normalization
    from ecgbatch.models.weights.registry import Registry

    config, weights = read_checkpoint(checkpoint)
    values = Normalization() if normalization is None else load_normalization(normalization)
    return Registry(into).add("checkpoint", "0", config, weights, values)


def read(
    path: str | Path, *, lead_sets: Collection[str] | None = None, settings: Settings | None = None
) -> "Recording":
    """One record of any supported format: (T, 12) millivolts at 100 Hz, and what the file tells of it.

    `path` is a file, for WFDB its header or signal file, or `FILE::ID` for one record of many. One with
    fewer than twelve leads is refused, but for those of `lead_sets`, as `scorer.lead_sets`. Raises RecordError.
    """
    from ecgbatch.models.score_files import read_file

    settings = settings or load()
    return read_file(path, min_seconds=settings.min_seconds, follow_links=settings.follow_links, lead_sets=lead_sets)


def score(
    scorer: "Scorer",
    records: "str | Path | Recording | Iterable[str | Path | Recording]",
    *,
    age: float | None = None,
    sex: int | None = None,
    settings: Settings | None = None,
) -> "list[Score]":
    """Scores records: paths as `read` takes them, or what `read` gave.

    `age` (years) and `sex` (0 male, 1 female) go before what the files tell. Raises RecordError for the first that
    cannot be scored, such as a path to one with fewer than twelve leads: `read` takes these with `lead_sets`. For
    arrays there is `score_signals`.
    """
    from ecgbatch.models.score_files import score_recording
    from ecgbatch.records.recording import Recording

    several = [records] if isinstance(records, (str, Path, Recording)) else records
    scores = []
    for record in several:
        path = "" if isinstance(record, Recording) else str(record)
        recording = record if isinstance(record, Recording) else read(record, settings=settings)
        scores.append(score_recording(scorer, recording, path, age, sex))
    return scores


def open_database(url: str | None = None, *, settings: Settings | None = None) -> "Database":
    """The SQL database at this version's schema, by default that of ECGBATCH_DATABASE_URL.

    `with database.read() as connection` gives a SQLAlchemy connection; `results` is the view that most need. Raises
    EcgbatchError when it cannot be reached or has another schema.
    """
    from ecgbatch.db.migrate import open_database as open_url

    settings = settings or load()
    return open_url((settings if url is None else replace(settings, database_url=url)).database_url)


def run(
    archive: str | Path,
    *,
    model: str | None = None,
    manifest: str | Path | None = None,
    settings: Settings | None = None,
) -> "Progress":
    """Scores an archive into the database as `ecgbatch run` does, and shows on standard error how far it is.

    Returns the job as it ended: job_id, state, total, scored, failed. Raises EcgbatchError when it cannot be done.
    """
    from ecgbatch.db.terms import JobOptions
    from ecgbatch.models.weights.registry import Registry
    from ecgbatch.producer.embedded import embedded_redis
    from ecgbatch.producer.run import run_archive
    from ecgbatch.records.archives.finding import Archive

    settings = settings or load()
    settings = settings if model is None else replace(settings, model=model)
    root = Path(archive).expanduser().resolve()
    found = Archive(root, None if manifest is None else Path(manifest), follow_links=settings.follow_links)
    used = Registry(settings.model_dir).find(settings.model)
    with embedded_redis(settings) as redis:
        return run_archive(settings, redis, open_database(settings=settings), used, lambda: found, JobOptions())
