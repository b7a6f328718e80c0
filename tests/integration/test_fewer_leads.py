"""Records with fewer than twelve leads: refused, or scored by the lead sets that a model is declared for."""

import json
from pathlib import Path
from typing import Any

import golden
import numpy as np
import pytest
from commands import Command
from scoring import make_job
from wfdb_files import samples, write

import ecgbatch
from ecgbatch.db import jobs
from ecgbatch.db.migrate import open_database
from ecgbatch.db.terms import JobOptions, LeadsMissing
from ecgbatch.models.config import LABELS, NetworkConfig
from ecgbatch.models.preprocessing import Normalization
from ecgbatch.models.scorer import Scorer
from ecgbatch.models.weights.model import Model
from ecgbatch.models.weights.registry import Registry
from ecgbatch.records.leads import LEAD_SETS, LEADS
from ecgbatch.records.quality import Quality
from ecgbatch.records.reading import read
from ecgbatch.records.recording import Reason, RecordError
from ecgbatch.settings import load

RECORDS = {
    "all": LEADS,
    "two": ("II", "V1", "I"),
    "chest": ("V6", "V5", "V4", "V3", "V2", "V1", "aVL"),
    "one": ("V2", "MLII"),
}
DECLARED = {"limb": 0.8, "precordial": 0.8}


@pytest.fixture
def fewer(tmp_path: Path) -> Path:
    """An archive of records with the leads of RECORDS, a CSV file of two leads among them."""
    archive = tmp_path / "archive"
    archive.mkdir()
    for name, leads in RECORDS.items():
        write(archive, samples(1, leads=len(leads)) // 64, names=leads, name=name)
    np.savetxt(archive / "table.csv", samples(5, leads=2) / 64e3, delimiter=",", header="I,III", comments="")
    (archive / "archive.toml").write_text('rate = 100\nunits = "mV"\n')
    return archive


@pytest.fixture
def declared(command: Command) -> Model:
    """A small model that is declared for two lead sets and uncertain of whatever there is of MI."""
    registry = Registry(Path(command.environment["ECGBATCH_MODEL_DIR"]))
    config = NetworkConfig("hierarchical", embedding_dim=64, blocks=1, patch=4)
    model = registry.add("small", "1", config, golden.golden_weights(config), Normalization())
    return registry.declare(model, lead_sets=DECLARED, uncertain={"mi": [0.0, 1.0], "cd": [1.0, 0.0]})


def test_a_job_scores_what_its_model_is_declared_for(command: Command, fewer: Path, declared: Model) -> None:
    assert "missing_lead" in command("run", fewer, "--model", "small", status=3).stdout
    refused = {row["path"]: row["detail"] for row in json.loads(command("failures", "1", "--json").stdout)}
    assert set(refused) == {"two", "chest", "one", "table.csv"}
    scoring = command("run", fewer, "--model", "small", "--leads-missing", "score", status=3)
    flags = {row["path"]: row["flags"] for row in command.rows("SELECT path, flags FROM results")}
    assert {path: without(text, "age_missing", "sex_missing") for path, text in flags.items()} == {
        "all": "limb_leads_contradict,uncertain:mi",
        "two": "leads_derived,leads_missing:limb,uncertain:mi",
        "chest": "leads_missing:precordial,uncertain:mi",
        "table.csv": "leads_derived,leads_missing:limb,uncertain:mi",
    }
    counts = {line.rpartition(" ")[0].strip(): line.rpartition(" ")[2] for line in scoring.stdout.splitlines()}
    assert (counts["flag leads_missing"], counts["flag uncertain"]) == ("3", "4"), "whatever they say more"
    [failure] = json.loads(command("failures", "2", "--json").stdout)
    assert failure["detail"].endswith("it has V2 and 1 other signals; of fewer leads the model takes limb, precordial")


def without(flags: str, *some: str) -> str:
    return ",".join(flag for flag in flags.split(",") if flag not in some)


def test_no_two_open_jobs_score_an_archive_in_two_ways(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'jobs.db'}")
    job_id = make_job(database, 1)
    by_few = JobOptions(leads_missing=LeadsMissing.SCORE)
    with pytest.raises(ecgbatch.EcgbatchError, match=f"job {job_id} .* --leads-missing refuse"):
        database.write(jobs.open_job, 1, 1, by_few)
    database.write(jobs.cancel, job_id)
    scoring, _ = database.write(jobs.open_job, 1, 1, by_few)
    assert database.write(jobs.open_job, 1, 1, by_few) == (scoring, True)
    with pytest.raises(ecgbatch.EcgbatchError, match=f"job {scoring} .* --leads-missing score"):
        database.write(jobs.retry, job_id, None)


def test_score_and_python_take_fewer_leads(command: Command, fewer: Path, declared: Model) -> None:
    line = ("score", str(fewer / "two.hea"), "--model", "small", "--json")
    assert json.loads(command(*line, status=3).stdout)["failures"][0]["reason"] == "missing_lead"
    [score] = json.loads(command(*line, "--leads-missing", "score").stdout)["scores"]
    scorer = ecgbatch.Scorer(declared)
    recording = ecgbatch.read(fewer / "two.hea", lead_sets=scorer.lead_sets, settings=load({}))
    [same] = ecgbatch.score(scorer, recording)
    assert same.flags == tuple(score["flags"])
    assert list(same.probabilities.values()) == pytest.approx(list(score["probabilities"].values()), abs=1e-6)
    with pytest.raises(RecordError, match=r"xlstm-ecg:1\.0\.0 is not declared for limb alone"):
        ecgbatch.score(Scorer(Registry(fewer).find("xlstm-ecg:1.0.0")), recording)


@pytest.mark.parametrize("kernel", ["compiled", "torch"])
def test_silent_leads_are_zeros_for_the_network_and_have_no_say_in_the_quality(kernel: str, declared: Model) -> None:
    """In training they are set to zero after the normalisation: it moves them by less than a thousandth."""
    scorer = Scorer(declared, kernel=kernel)
    whole = np.random.default_rng(0).normal(0, 0.3, (1, 1000, 12))
    metadata = np.array([[60, 0]], np.float32)
    _, [quality] = scorer.clean(np.repeat(whole[..., :1], 12, axis=2))
    for lead_set, leads in LEAD_SETS.items():
        silent = [at for at, lead in enumerate(LEADS) if lead not in leads]
        alone = whole.copy()
        alone[..., silent] = 0
        cleaned, [measured] = scorer.clean(alone)
        assert np.abs(cleaned[..., silent]).max() < 1e-3
        in_training, _ = scorer.clean(whole)
        in_training[..., silent] = 0
        np.testing.assert_allclose(scorer.score(cleaned, metadata), scorer.score(in_training, metadata), atol=1e-3)
        assert measured.amplitude == pytest.approx(quality.amplitude, rel=0.1)
        assert (measured.of_leads(lead_set).limb_residual == 0) == (lead_set in ("I", "II", "precordial"))
    assert Quality(1.0, 0.5).of_leads(None) == Quality(1.0, 0.5)


@pytest.mark.parametrize(
    "names, taken",
    [
        (("V1", "II", "III", "V2"), "limb+V2"),
        (("V1", "II", "III"), "limb"),
        (("aVF", "aVR"), "limb"),
        (("I", *LEAD_SETS["precordial"][:5]), "I"),
        (("II",), "II"),
    ],
)
def test_the_most_telling_set_is_taken_and_all_other_leads_are_silent(
    tmp_path: Path, names: tuple[str, ...], taken: str
) -> None:
    write(tmp_path, samples(3) // 16)
    write(tmp_path, (samples(3) // 16)[:, [LEADS.index(name) for name in names]], names=names, name="few")
    found = read(tmp_path, "few", lead_sets=LEAD_SETS)
    assert (found.lead_set, f"leads_missing:{taken}" in found.flags) == (taken, True)
    whole = read(tmp_path, "r").signal
    for at, lead in enumerate(LEADS):
        if lead not in LEAD_SETS[taken]:
            assert not found.signal[:, at].any()
        elif lead in names:
            np.testing.assert_array_equal(found.signal[:, at], whole[:, at])
        else:
            assert found.signal[:, at].any()
    with pytest.raises(RecordError) as caught:
        read(tmp_path, "few", lead_sets=())
    assert caught.value.reason == Reason.MISSING_LEAD
    assert caught.value.detail.endswith("of fewer leads the model takes none")


@pytest.mark.parametrize(
    "declared",
    [
        {"lead_sets": {"V3": 0.9}},
        {"lead_sets": ["limb"]},
        {"lengths": {"5": 93}},
        {"uncertain": {"mi": [0.2]}},
        {"uncertain": {"afib": [0.2, 0.3]}},
        {"uncertain": dict.fromkeys(LABELS, 0.5)},
    ],
)
def test_a_declaration_that_makes_no_sense_is_refused(tmp_path: Path, declared: dict[str, Any]) -> None:
    registry = Registry(tmp_path)
    config = NetworkConfig("hierarchical", embedding_dim=64, blocks=1, patch=4)
    model = registry.add("small", "1", config, golden.golden_weights(config), Normalization())
    with pytest.raises(ecgbatch.EcgbatchError, match="is no description of a model"):
        registry.declare(model, **declared)
