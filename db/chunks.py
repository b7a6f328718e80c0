"""A chunk while a worker has it: claimed, its outcomes stored under a lease, given up or ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ecgbatch.db import tallies
from ecgbatch.db.bulk import fill_in, insert_new
from ecgbatch.db.functions import CommitWithoutDisk, Now, SecondsFromNow
from ecgbatch.db.jobs import OPEN, finish_if_complete, note_activity, recount
from ecgbatch.db.outcomes import LABEL_COLUMNS, Failure, Prediction, Probabilities
from ecgbatch.db.schema import (
    archives,
    chunks,
    class_probabilities,
    embeddings,
    failures,
    job_items,
    jobs,
    models,
    predictions,
    recordings,
    windows,
)
from ecgbatch.db.terms import ChunkState, LeadsMissing, Windows
from ecgbatch.records.recording import Record

Outcome: TypeAlias = Prediction | Failure

ACTIVITY_SECONDS = 1.0
"""How often a job's activity is written down; more often costs its row a queue of workers."""


@dataclass(frozen=True)
class JobPlan:
    """What the chunks of a job have in common: the archive's folder, the model's fingerprint, how records are read.

    `thresholds` are those of the superclasses, None where the model tells classes of its own.
    """

    job_id: int
    root: str
    model_id: int
    model: str
    thresholds: Probabilities | None
    windows: Windows
    leads_missing: LeadsMissing
    embeddings: bool


@dataclass(frozen=True)
class Claim:
    """A worker's right to a chunk: `attempt` counts from 1, `records` are those that have no outcome yet.

    `thresholds` as in JobPlan. `rescored` are the recordings of which an older prediction gives way to the outcome.
    """

    job_id: int
    number: int
    model_id: int
    thresholds: Probabilities | None
    worker: str
    attempt: int
    records: tuple[Record, ...]
    rescored: frozenset[int] = frozenset()


class LeaseLost(Exception):
    """Another worker has the chunk now, or its job was cancelled: nothing more is to be written."""


# The statements that each chunk costs, built once: to build one takes longer than to run it.

_THIS = (chunks.c.job_id == sa.bindparam("this_job")) & (chunks.c.number == sa.bindparam("this_number"))
_THIS_JOB = jobs.c.id == sa.bindparam("this_job")
_OPEN_JOB = sa.exists().where(_THIS_JOB, jobs.c.state.in_(OPEN))
_RENEWED = SecondsFromNow(sa.bindparam("lease", type_=sa.Float))
_MINE = (chunks.c.state == ChunkState.RUNNING) & (chunks.c.worker == sa.bindparam("by"))
_RECENTLY_ACTIVE = sa.exists().where(_THIS_JOB, jobs.c.active_at > SecondsFromNow(-ACTIVITY_SECONDS))


def _claim_statement() -> sa.UpdateBase:
    """Takes a chunk that is free, if its job is open.

    Its commit need not reach the disk. Should the server crash and undo the claim, then all that was stored under it is
    undone too, since the log is written in order; the worker cannot store any more, since the chunk is not RUNNING, and
    the chunk is found like any other whose message is gone.
    """
    expired = chunks.c.lease_until < Now()
    waiting = chunks.c.state.in_((ChunkState.PENDING, ChunkState.QUEUED))
    mine_again = chunks.c.worker == sa.bindparam("by")
    free = waiting | ((chunks.c.state == ChunkState.RUNNING) & (expired | mine_again))
    claim = chunks.update().where(_THIS, free, _OPEN_JOB)
    claim = claim.values(
        state=ChunkState.RUNNING,
        attempts=chunks.c.attempts + 1,
        lease_until=_RENEWED,
        worker=sa.bindparam("by"),
        task_id=sa.bindparam("task"),
    )
    with_outcome = chunks.c.scored + chunks.c.reused + chunks.c.failed
    return claim.returning(
        chunks.c.attempts,
        chunks.c.size,
        with_outcome.label("with_outcome"),
        _RECENTLY_ACTIVE.label("recently_active"),
        CommitWithoutDisk(),
    )


def _store_statement() -> sa.UpdateBase:
    """Counts new outcomes, renews the lease or ends the chunk; does nothing once it is lost or the job cancelled.

    Tells whether the model has any failures that could be superseded and the job any chunks that are still pending.
    """
    scored = chunks.c.scored + sa.bindparam("new_scored", type_=sa.Integer)
    failed = chunks.c.failed + sa.bindparam("new_failed", type_=sa.Integer)
    complete = scored + failed + chunks.c.reused == chunks.c.size
    store = chunks.update().where(_THIS, _MINE, _OPEN_JOB)
    store = store.values(
        scored=scored,
        failed=failed,
        state=sa.case((complete, ChunkState.DONE), else_=ChunkState.RUNNING),
        lease_until=sa.case((complete, sa.null()), else_=_RENEWED),
        **tallies.added(),
    )
    other = chunks.alias("other")
    pending = sa.exists().where(other.c.job_id == sa.bindparam("this_job"), other.c.state == ChunkState.PENDING)
    failed_before = sa.exists().where(failures.c.job_id == jobs.c.id, jobs.c.model_id == sa.bindparam("of_model"))
    return store.returning(
        chunks.c.state,
        pending.label("pending"),
        failed_before.label("failures"),
        _RECENTLY_ACTIVE.label("recently_active"),
    )


def _records_statement() -> sa.Select[Any]:
    """The records of a chunk, in the order of their paths' first enqueueing."""
    columns = [*(recordings.c[name] for name in ("path", "age", "sex", "id")), job_items.c.rescore]
    records = sa.select(*columns).join_from(job_items, recordings, recordings.c.id == job_items.c.recording_id)
    this_chunk = (job_items.c.job_id == sa.bindparam("this_job")) & (job_items.c.chunk == sa.bindparam("this_number"))
    return records.where(this_chunk).order_by(recordings.c.id)


_CLAIM = _claim_statement()
_STORE = _store_statement()
_RECORDS = _records_statement()
_RENEW = chunks.update().where(_THIS, _MINE, _OPEN_JOB).values(lease_until=_RENEWED)


def plan_of(connection: Connection, job_id: int) -> JobPlan | None:
    """What a worker must know to work on a job; None if there is no such job."""
    columns = (jobs.c.id, archives.c.root, jobs.c.model_id, models.c.fingerprint, jobs.c.windows, jobs.c.leads_missing)
    plan = sa.select(*columns, jobs.c.embeddings, *(models.c[f"threshold_{name}"] for name in LABEL_COLUMNS))
    plan = plan.join_from(jobs, models).join(archives, archives.c.id == jobs.c.archive_id)
    found = connection.execute(plan.where(jobs.c.id == job_id)).one_or_none()
    if found is None:
        return None
    id_, root, model_id, fingerprint, windows, leads_missing, embedded, *superclasses = found
    thresholds = None if None in superclasses else tuple(superclasses)
    way = Windows(windows), LeadsMissing(leads_missing), embedded
    return JobPlan(id_, root, model_id, fingerprint, thresholds, *way)


def claim(
    connection: Connection, plan: JobPlan, number: int, worker: str, task_id: str, lease: timedelta
) -> Claim | None:
    """Takes the chunk for `worker`, counting the attempt; None when it is done, cancelled or another's."""
    which = dict(this_job=plan.job_id, this_number=number)
    whose = dict(by=worker, task=task_id, lease=lease.total_seconds())
    taken = connection.execute(_CLAIM, which | whose).one_or_none()
    if taken is None:
        return None
    if not taken.recently_active:
        note_activity(connection, plan.job_id)
    rows = connection.execute(_RECORDS, which).all()
    records = tuple(Record(*row[:4]) for row in rows)
    if taken.attempts > 1 or taken.with_outcome:
        have_one = _with_outcome(connection, plan, number)
        records = tuple(record for record in records if record.id not in have_one)
        if not records and _end_if_complete(connection, plan.job_id, number, plan.model_id):
            return None
    return Claim(
        plan.job_id,
        number,
        plan.model_id,
        plan.thresholds,
        worker,
        taken.attempts,
        records,
        frozenset(row.id for row in rows if row.rescore),
    )


def _with_outcome(connection: Connection, plan: JobPlan, number: int) -> frozenset[int]:
    """The recordings of a chunk that have a prediction or a failure."""
    items = sa.select(job_items.c.recording_id).where(job_items.c.job_id == plan.job_id, job_items.c.chunk == number)
    scored = items.join(predictions, predictions.c.recording_id == job_items.c.recording_id)
    failed = items.join(failures, failures.c.recording_id == job_items.c.recording_id)
    counts = (predictions.c.model_id == plan.model_id) & (~job_items.c.rescore | (predictions.c.job_id == plan.job_id))
    of_job = failures.c.job_id == plan.job_id
    return frozenset(connection.execute(sa.union(scored.where(counts), failed.where(of_job))).scalars())


def renew(connection: Connection, claim: Claim, lease: timedelta) -> None:
    """Makes the lease run from now; raises LeaseLost."""
    if connection.execute(_RENEW, _by(claim) | dict(lease=lease.total_seconds())).rowcount == 0:
        raise LeaseLost


def _by(claim: Claim) -> dict[str, Any]:
    return dict(this_job=claim.job_id, this_number=claim.number, by=claim.worker)


def store(connection: Connection, claim: Claim, outcomes: Sequence[Outcome], lease: timedelta) -> bool:
    """Writes outcomes with the renewed lease, and the chunk's end if they are its last; says whether the job ended.

    Raises LeaseLost, with nothing written.
    """
    scored = [outcome for outcome in outcomes if isinstance(outcome, Prediction)]
    failed = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    rescored = [outcome.recording_id for outcome in outcomes if outcome.recording_id in claim.rescored]
    if rescored:
        _remove_older(connection, claim, rescored)
    new_scored = _insert_predictions(connection, claim, scored)
    if rescored:
        tallies.count_others_anew(connection, claim.job_id, claim.model_id, rescored)
    if new_scored:
        tallies.credit(connection, claim.job_id, claim.worker, new_scored)
    unscored = [failure.row() for failure in _unscored(connection, claim, failed)]
    new_failed = insert_new(connection, failures, unscored, at="failed_at", job_id=claim.job_id)
    counts = dict(new_scored=new_scored, new_failed=new_failed, of_model=claim.model_id, lease=lease.total_seconds())
    new_tallies = tallies.tally(scored, claim.thresholds)
    stored = connection.execute(_STORE, _by(claim) | counts | new_tallies).one_or_none()
    if stored is None:
        raise LeaseLost
    if not stored.recently_active:
        note_activity(connection, claim.job_id)
    if new_scored < len(scored) or new_failed < len(failed):  # another job has scored some meanwhile
        _end_if_complete(connection, claim.job_id, claim.number, claim.model_id)
    elif stored.state == ChunkState.DONE:
        if stored.failures:
            _supersede_failures(connection, claim.job_id, claim.number, claim.model_id)
        if not stored.pending:
            return finish_if_complete(connection, claim.job_id)
    return False


def _insert_predictions(connection: Connection, claim: Claim, scored: Sequence[Prediction]) -> int:
    """Writes predictions with all that the recordings told; returns how many were new."""
    whose = dict(job_id=claim.job_id, model_id=claim.model_id, worker=claim.worker)
    own_classes = claim.thresholds is None
    rows = [prediction.row(tells_superclasses=not own_classes) for prediction in scored]
    new = insert_new(connection, predictions, rows, at="scored_at", **whose)
    with_more = [prediction for prediction in scored if own_classes or prediction.windows or prediction.features]
    if with_more and new < len(scored):  # another job has scored some meanwhile, in its way
        own = _scored_by(connection, claim, [prediction.recording_id for prediction in with_more])
        with_more = [prediction for prediction in with_more if prediction.recording_id in own]
    window_rows = [row for prediction in with_more for row in prediction.window_rows()]
    insert_new(connection, windows, window_rows, model_id=claim.model_id)
    if own_classes:
        class_rows = [row for prediction in with_more for row in prediction.class_rows()]
        insert_new(connection, class_probabilities, class_rows, model_id=claim.model_id)
    features = [dict(recording_id=p.recording_id, features=p.features) for p in with_more if p.features]
    insert_new(connection, embeddings, features, model_id=claim.model_id)
    fill_in(connection, recordings, [prediction.recording_row() for prediction in scored])
    return new


def _scored_by(connection: Connection, claim: Claim, recording_ids: Sequence[int]) -> frozenset[int]:
    """Those of the recordings that have their prediction from the claim's job."""
    of_job = (predictions.c.job_id == claim.job_id) & (predictions.c.model_id == claim.model_id)
    own = sa.select(predictions.c.recording_id).where(of_job, predictions.c.recording_id.in_(recording_ids))
    return frozenset(connection.execute(own).scalars())


def _remove_older(connection: Connection, claim: Claim, recording_ids: Sequence[int]) -> None:
    """Removes what earlier jobs predicted of recordings that were tried again: each is scored or failed, never both."""
    older = sa.select(predictions.c.recording_id).where(
        predictions.c.model_id == claim.model_id,
        predictions.c.recording_id.in_(recording_ids),
        predictions.c.job_id != claim.job_id,
    )
    found = connection.execute(older).scalars().all()
    for table in (windows, class_probabilities, embeddings, predictions):
        these = (table.c.model_id == claim.model_id) & table.c.recording_id.in_(found)
        connection.execute(table.delete().where(these))


def _unscored(connection: Connection, claim: Claim, failed: Sequence[Failure]) -> Sequence[Failure]:
    """Those failures whose records no other job of the model has scored meanwhile."""
    if not failed:
        return failed
    scored = sa.select(predictions.c.recording_id).where(predictions.c.model_id == claim.model_id)
    scored = scored.where(predictions.c.recording_id.in_([failure.recording_id for failure in failed]))
    known = set(connection.execute(scored).scalars())
    return [failure for failure in failed if failure.recording_id not in known]


def _end_if_complete(connection: Connection, job_id: int, number: int, model_id: int) -> bool:
    """Ends a chunk whose records all have an outcome, and its job with the last of its chunks."""
    if not recount(connection, job_id, [number]):
        return False
    _supersede_failures(connection, job_id, number, model_id)
    finish_if_complete(connection, job_id)
    return True


def _supersede_failures(connection: Connection, job_id: int, number: int, model_id: int) -> None:
    """Removes what earlier jobs of the model could not score and this chunk did."""
    item, earlier = job_items.alias("item"), job_items.alias("earlier")
    query = sa.select(earlier.c.job_id, earlier.c.recording_id, earlier.c.chunk)
    query = query.join_from(item, predictions, predictions.c.recording_id == item.c.recording_id)
    query = query.join(failures, failures.c.recording_id == item.c.recording_id)
    same = (earlier.c.job_id == failures.c.job_id) & (earlier.c.recording_id == failures.c.recording_id)
    query = query.join(earlier, same).join(jobs, jobs.c.id == failures.c.job_id)
    query = query.where(item.c.job_id == job_id, item.c.chunk == number)
    query = query.where(predictions.c.model_id == model_id, jobs.c.model_id == model_id)
    for failed_in, recording_id, chunk in connection.execute(query).all():
        this = (failures.c.job_id == failed_in) & (failures.c.recording_id == recording_id)
        connection.execute(failures.delete().where(this))
        recount(connection, failed_in, [chunk])


def give_up(connection: Connection, job_id: int, number: int, task_id: str) -> None:
    """Makes a chunk that a task has pending again, for another attempt."""
    held = (chunks.c.job_id == job_id) & (chunks.c.number == number) & (chunks.c.task_id == task_id)
    running = chunks.update().where(held, chunks.c.state == ChunkState.RUNNING)
    connection.execute(running.values(state=ChunkState.PENDING, lease_until=None))
