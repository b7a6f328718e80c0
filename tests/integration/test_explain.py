"""What `ecgbatch explain` says: parts that a score does not depend on have no weight, those that it does have most."""

import json
from pathlib import Path

import numpy as np
import pytest
from commands import Command
from numpy.typing import NDArray

from ecgbatch.cli import main
from ecgbatch.models.scorer import Scorer
from ecgbatch.models.training.start import WIDENED
from ecgbatch.models.weights.registry import SHIPPED, Registry
from ecgbatch.records.leads import LEADS
from ecgbatch.records.synthetic import write_archive
from ecgbatch.viewer.occlusion import occlude

EMBEDDING = "embedding.weight"
METADATA = (60.0, 1.0)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic record."""
    archive = tmp_path_factory.mktemp("explained")
    write_archive(archive, records=1)
    return archive / f"{(archive / 'RECORDS').read_text().split()[0]}.hea"


def scorer_that_sees(folder: Path, sight: dict[str, float]) -> Scorer:
    """The default model with leads' columns times a factor: those of the embedding and of the extremes."""
    model = Registry(SHIPPED).find(None)
    weights = {key: weight.copy() for key, weight in model.weights().items()}
    before = model.config.features_dim - 2 * len(LEADS)
    for lead, factor in sight.items():
        weights[EMBEDDING][:, LEADS.index(lead) :: len(LEADS)] *= factor
        weights[WIDENED][:, before + LEADS.index(lead) :: len(LEADS)] *= factor
    return Scorer(Registry(folder).add("seeing", "1", model.config, weights, model.normalization))


def noise(samples: int = 500) -> NDArray[np.float64]:
    return np.random.default_rng(0).normal(0, 0.3, (samples, len(LEADS)))


def test_a_lead_that_the_network_is_blind_to_has_no_weight(tmp_path: Path) -> None:
    found = occlude(scorer_that_sees(tmp_path, {"V2": 0.0}), noise(), METADATA)
    blind = LEADS.index("V2")
    weights = np.abs(found.by_lead).max(axis=1)
    assert weights[blind] < 1e-6
    assert np.abs(found.by_piece[blind]).max() < 1e-6
    assert np.delete(weights, blind).min() > 1e-5


def test_the_lead_that_the_score_depends_on_comes_first(tmp_path: Path) -> None:
    sight = dict.fromkeys(LEADS, 0.02) | {"aVL": 1.0}
    found = occlude(scorer_that_sees(tmp_path, sight), noise(), METADATA)
    planted = LEADS.index("aVL")
    assert np.abs(found.by_piece).sum(axis=(1, 2)).argmax() == planted
    assert np.abs(found.by_lead).sum(axis=1).argmax() == planted


def test_only_the_half_second_that_holds_something_has_weight() -> None:
    signal = np.zeros((520, len(LEADS)))
    signal[150:200, LEADS.index("V3")] = noise()[:50, 0]
    found = occlude(Scorer(Registry(SHIPPED).find(None)), signal, METADATA)
    assert found.by_piece.shape == (12, 11, 5)
    weights = np.abs(found.by_piece).max(axis=2)
    assert np.argwhere(weights > 1e-6).tolist() == [[LEADS.index("V3"), 3]]
    assert found.by_piece[LEADS.index("V3"), 3] == pytest.approx(found.by_lead[LEADS.index("V3")], abs=1e-6)
    assert found.strongest("mi")[LEADS.index("V3")][0] == 1.5


def test_it_scores_as_the_command_score_does(command: Command, record: Path) -> None:
    explained = json.loads(command("explain", record, "--json", "--superclass", "hyp").stdout)
    [scored] = json.loads(command("score", record, "--json").stdout)["scores"]
    assert {name: explained[name] for name in scored} == scored
    assert [row["lead"] for row in explained["leads"]] == list(LEADS)
    assert np.array(explained["half_seconds"]["V6"]).shape == (20, 5)
    assert set(explained["leads"][0]) > {"norm", "mi", "sttc", "cd", "hyp", "most_of_hyp_from_s"}


def test_it_says_in_words_what_it_is_and_is_not(
    record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "ecg.svg"
    assert main(["explain", str(record), "--output", str(file)]) == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 14
    for words in ("speaks for the class", "not about the heart: no cause, no proof", "never for diagnosis"):
        assert words in said.err
    plain = tmp_path / "plain.svg"
    assert main(["plot", str(record), "--rows", "--output", str(plain)]) == 0
    assert file.read_text().count("opacity") >= plain.read_text().count("opacity") + 200
