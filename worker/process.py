"""One worker process: the resident models, and a chunk from its claim to its last outcome."""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path

from ecgbatch.db import chunks, jobs, workers
from ecgbatch.db.chunks import Claim, JobPlan, LeaseLost, Outcome
from ecgbatch.db.engine import Database
from ecgbatch.db.outcomes import Prediction
from ecgbatch.db.terms import LeadsMissing
from ecgbatch.records.paths import on_disk
from ecgbatch.records.places import place_at
from ecgbatch.records.recording import Record, RecordError
from ecgbatch.records.remote import url_of
from ecgbatch.settings import EcgbatchError, Settings
from ecgbatch.worker.isolation import run_in_fork
from ecgbatch.worker.lease import LeaseKeeper
from ecgbatch.worker.logs import say
from ecgbatch.worker.outcomes import failure_of
from ecgbatch.worker.pipeline import Extent, Pipeline, Scorer, Stages, Times, flags_to_refuse
from ecgbatch.worker.watchdog import Watchdog

log = logging.getLogger(__name__)

PUT_BACK_SECONDS = 1.0
"""How often a process takes a chunk that it cannot work on, only to put it back: others are to have the time for it."""


class CannotWorkHere(EcgbatchError):
    """Something that a job needs, its archive or its model, is not on this machine; another may have it."""


class ScoringProcess:
    """Scores chunks, one at a time, by models that stay resident; `resident` are there already, by fingerprint."""

    def __init__(
        self, settings: Settings, database: Database, stages: Stages, worker: str, resident: Mapping[str, Scorer]
    ) -> None:
        self.settings = settings
        self.database = database
        self.stages = stages
        self.worker = worker
        self.name = f"{worker}:{os.getpid()}"
        self.lease_length = timedelta(seconds=settings.lease_seconds)
        self._lease = LeaseKeeper(database, self.lease_length)
        self._watchdog = Watchdog(settings.record_seconds)
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reader")
        self._refused = flags_to_refuse(settings)
        self._scorers = dict(resident)
        self._plans: dict[int, JobPlan] = {}
        self._problems: dict[int, str] = {}
        self._put_back_at = 0.0

    def scorer(self, fingerprint: str) -> Scorer:
        """The model of this fingerprint, loaded when it is first asked for."""
        if fingerprint not in self._scorers:
            self._scorers[fingerprint] = self.stages.load(self.settings, fingerprint)
        return self._scorers[fingerprint]

    def score_chunk(self, job_id: int, number: int, task_id: str) -> str:
        """Brings each record of a chunk to its outcome and says what came of it, in one line.

        Raises CannotWorkHere, with nothing claimed; EcgbatchError when the database stays away, or when something
        unexpected happened in a batch.
        """
        plan = self._plan(job_id)
        if plan is None:
            return f"dropped: there is no job {job_id} in this database"
        root, scorer = self._archive_and_model(plan)
        claim = self.database.write(chunks.claim, plan, number, self.name, task_id, self.lease_length)
        if claim is None:
            return "nothing to do: done, cancelled, or with another worker"
        scored = failed = 0

        def store(outcomes: Sequence[Outcome]) -> None:
            nonlocal scored, failed
            if self.database.write(chunks.store, claim, outcomes, self.lease_length):
                self.database.write(jobs.refresh_statistics)
            predictions = sum(isinstance(outcome, Prediction) for outcome in outcomes)
            scored, failed = scored + predictions, failed + len(outcomes) - predictions

        extent = Extent(plan.windows, scorer.lead_sets if plan.leads_missing == LeadsMissing.SCORE else None)
        how = self.settings, self.stages.read, extent
        pipeline = Pipeline(*how, scorer, store, self._watchdog, self._reader, self._refused, plan.embeddings)
        try:
            with self._lease.keeping(claim):
                self._run(pipeline, root, claim)
        except LeaseLost:
            self.database.write(chunks.give_up, job_id, number, task_id)
            return f"stopped, job cancelled or chunk with another worker: scored {scored}, failed {failed}"
        except Exception as error:
            if isinstance(error, EcgbatchError):
                raise
            # A MemoryError that got out would end all of the worker's processes: celery takes it for the last word.
            cause = f"{type(error).__name__}: {error}"
            raise EcgbatchError(f"{cause}; the chunk's records will be tried one by one") from error
        self._say_what_was_done(claim, scored, failed, pipeline.times)
        return f"scored {scored}, failed {failed}"

    def wait_to_put_back(self) -> None:
        """Lets some time pass since the last chunk that could not be worked on here."""
        time.sleep(max(0.0, self._put_back_at + PUT_BACK_SECONDS - time.monotonic()))
        self._put_back_at = time.monotonic()

    def _say_what_was_done(self, claim: Claim, scored: int, failed: int, times: Times) -> None:
        seconds = {f"seconds {stage}": round(value, 3) for stage, value in vars(times).items()}
        counts = {"records": len(claim.records), "scored": scored, "failed": failed, "attempt": claim.attempt}
        say(log, "chunk done", job=claim.job_id, chunk=claim.number, **counts, **seconds)

    def _archive_and_model(self, plan: JobPlan) -> tuple[Path, Scorer]:
        """What a job needs; says so, where `status` shows it, as long as this machine lacks it."""
        try:
            found = self._archive(plan), self._model(plan)
        except CannotWorkHere as error:
            if self._problems.get(plan.job_id) != str(error):
                log.warning("%s", error)
                self._problems[plan.job_id] = str(error)
                self._report_problems()
            raise
        if self._problems.pop(plan.job_id, None) is not None:
            self._report_problems()
        return found

    def _report_problems(self) -> None:
        problems = "; ".join(self._problems.values()) or None
        self.database.write(workers.report_problem, self.worker, problems)

    def _plan(self, job_id: int) -> JobPlan | None:
        """What the job's chunks have in common, which never changes."""
        if job_id not in self._plans:
            plan = self.database.write(chunks.plan_of, job_id)
            if plan is None:
                return None
            self._plans[job_id] = plan
        return self._plans[job_id]

    def _archive(self, plan: JobPlan) -> Path:
        """The archive's folder. An empty one is what is left of a mount that is not there."""
        root = Path(on_disk(plan.root)[0])
        place = place_at(root)
        try:
            place.check()
            if url_of(root) is not None or next(place.entries(""), None) is not None:
                return root
            cause = "it is empty"
        except EcgbatchError as error:
            cause = str(error)
        except OSError as error:
            cause = str(error.strerror)
        raise CannotWorkHere(f"the archive {plan.root} of job {plan.job_id} is not here ({cause}): mount it")

    def _model(self, plan: JobPlan) -> Scorer:
        try:
            return self.scorer(plan.model)
        except EcgbatchError as error:
            raise CannotWorkHere(f"job {plan.job_id} cannot be scored here: {error}") from error

    def _run(self, pipeline: Pipeline, root: Path, claim: Claim) -> None:
        """A chunk whose first attempt did not come to its end is suspected: its records go one by one."""
        if claim.attempt == 1:
            pipeline.run(root, claim.records)
            return
        for record in claim.records:
            pipeline.store(self._score_shielded(pipeline, root, record))

    def _score_shielded(self, pipeline: Pipeline, root: Path, record: Record) -> Sequence[Outcome]:
        """The outcome of a record that might take its process down.

        A GPU cannot be used in a forked process, so there only the reading is shielded.
        """
        score, seconds = partial(pipeline.run_one, root, record), self.settings.record_seconds
        try:
            if pipeline.scorer.device == "cpu":
                return run_in_fork(score, seconds)
            run_in_fork(lambda: len(pipeline.read(self.settings, root, pipeline.extent, record.path)), seconds)
            return score()
        except RecordError as error:
            return [failure_of(record, error)]
