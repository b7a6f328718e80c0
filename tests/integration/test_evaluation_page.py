"""The page of an evaluation: its figures, its pictures, and nothing from elsewhere."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from labelled import THRESHOLDS, columns, some_records
from numpy.typing import NDArray

from ecgbatch.models.config import LABELS, MEANINGS
from ecgbatch.models.evaluation.figures import evaluate
from ecgbatch.models.evaluation.labels import LabelledRecord
from ecgbatch.models.evaluation.page import _caveat, write_page
from ecgbatch.models.evaluation.predictions import Predictions
from ecgbatch.models.weights.model import Model

ABOUT = {"job": 1, "model": "a:1", "fingerprint": "f00", "labels": "a<b>.csv", "labels_sha256": "abc"}
ABOUT |= {"fold": 9, "without_prediction": 2}
MODEL = Model({"name": "a", "version": "1", "training": {}}, Path())


def page(path: Path, records: list[LabelledRecord], probabilities: NDArray[np.float64], **about: Any) -> str:
    found = Predictions(1, MODEL, records, probabilities, 2, 82, 0)
    write_page(path, ABOUT | about, evaluate(records, probabilities, THRESHOLDS), found)
    return path.read_text()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of some_records(80)."""
    return page(tmp_path_factory.mktemp("page") / "a.html", *some_records(80))


def test_the_page_needs_nothing_else_and_is_the_same_each_time(drawn: str, tmp_path: Path) -> None:
    content, again = drawn, page(tmp_path / "b.html", *some_records(80))
    time = r"<td>[-0-9]+ [0-9:]+ UTC</td>"
    assert re.sub(time, "", content) == re.sub(time, "", again) != content
    assert not re.search(r"""(src|href)=["'](?!#|data:)|url\((?!#)|<script|@import""", content)
    assert "research use only, never for diagnosis" in content
    assert "<h1>a:1 on fold 9 of a&lt;b&gt;.csv</h1>" in content
    assert "prefers-color-scheme: dark" in content
    assert not re.search("#(243b53|1f5f99|9aa5b1|dbe4ec)", re.sub(r"<style>.*?</style>", "", content, flags=re.DOTALL))


@pytest.mark.parametrize(
    ("fold", "training", "said"),
    [
        (9, {}, "flatter the model a little"),
        (8, {}, "far too good"),
        (10, {}, "has not seen fold 10"),
        (None, {}, "trained on folds 1 to 8"),
        (9, None, "only who trained it can say"),
    ],
)
def test_the_page_says_what_its_figures_are_worth(fold: int | None, training: dict[str, Any] | None, said: str) -> None:
    assert said in _caveat(Model({"training": training}, Path()), fold)
    assert "tuned on a table" in _caveat(Model({"training": training, "tuned": {"records": 9}}, Path()), fold)


def test_the_page_shows_the_figures(drawn: str) -> None:
    records, probabilities = some_records(80)
    content = drawn
    evaluation = evaluate(records, probabilities, THRESHOLDS)
    for figures in (*evaluation.figures.values(), *(group.figures for group in evaluation.groups)):
        for estimate in figures.values():
            assert f"<td>{estimate.value:.3f}<span>{estimate.low:.3f}–{estimate.high:.3f}</span></td>" in content
    tiles = content[content.index('<div class="tiles">') : content.index("<h2>Figures")]
    assert f"<b>{evaluation.figures['macro']['auc'].value:.3f}</b>" in tiles
    assert f"<b>{evaluation.exact_match.value:.3f}</b>" in tiles
    auc, f1, *panels = texts(content)
    for row, name in {**MEANINGS, "macro": "mean of the classes (macro)"}.items():
        assert name in auc and name in f1, row
    assert {"age <40", "sex female"} <= set(panels[0])
    roc, precision, calibration, confusion = (panels[2 + 5 * at :][:5] for at in range(4))
    labelled, together = panels[22:]
    for at, (label, superclass, p) in enumerate(zip(LABELS, columns(records).T, probabilities.T, strict=True)):
        figures = evaluation.figures[label]
        for panel, what, metric in (
            (roc[at], "AUC", "auc"),
            (precision[at], "AP", "average_precision"),
            (calibration[at], "error", "calibration_error"),
        ):
            assert MEANINGS[label] in panel
            [title] = [text for text in panel if text.startswith(what)]
            assert float(title.split()[-1]) == pytest.approx(figures[metric].value, abs=6e-4)
        found = superclass[p >= THRESHOLDS[label]]
        counts = {f"{found.sum()}", f"{(found == 0).sum()}", f"{superclass.sum() - found.sum()}"}
        assert counts <= set(confusion[at])
        assert str(evaluation.positives[label]) in labelled
        assert str(len(found)) in together


def test_the_page_of_one_record_has_gaps(tmp_path: Path) -> None:
    records, probabilities = some_records(2)
    content = page(tmp_path / "a.html", records[:1], probabilities[:1])
    assert len(texts(content)) == 2 + 2 + 4 * 5 + 2
    assert "nan" not in re.sub(r"<(style|svg).*?</\1>", "", content, flags=re.DOTALL).lower()


def test_what_a_page_is_made_of_cannot_break_out_of_it(tmp_path: Path) -> None:
    hostile: Any = "<script>alert(1)</script>&\"'"
    about: dict[str, Any] = dict.fromkeys(("model", "labels", "fingerprint", "labels_sha256"), hostile)
    content = page(tmp_path / "a.html", *some_records(20), **about)
    assert "<script" not in content
    assert content.count("&lt;script&gt;") >= 5


def texts(content: str) -> list[list[str]]:
    """What is written in each picture."""
    pictures = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", content, re.DOTALL)]
    return [["".join(each.itertext()).strip() for each in svg.iter() if each.tag.endswith("text")] for svg in pictures]
