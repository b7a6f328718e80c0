"""The documents say what the code does: each table of docs/reference.md is held against it, row by row."""

import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
import sqlalchemy as sa
import yaml
from documents import DOCUMENTS, links, table
from places import REPOSITORY

from ecgbatch.db.engine import Database
from ecgbatch.db.migrate import upgrade
from ecgbatch.records.recording import Flag, Reason
from ecgbatch.settings import Settings, variable

REFERENCE = REPOSITORY / "docs/reference.md"


def test_settings() -> None:
    def default(value: object) -> str:
        return "unset" if value is None else f"`{str(value).replace(str(Path.home()), '~')}`"

    expected = {variable(s.name): [default(s.default), s.metadata["meaning"]] for s in fields(Settings)}
    assert table(REFERENCE, "Settings") == expected


def test_tables_and_views(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/test.db")
    upgrade(database)
    inspector = sa.inspect(database.engine)
    names = {*inspector.get_table_names(), *(f"{view}` (view)" for view in inspector.get_view_names())}
    expected = {
        name: [", ".join(column["name"] for column in inspector.get_columns(name.partition("`")[0]))]
        for name in names - {"alembic_version"}
    }
    assert table(REFERENCE, "Tables and views") == expected


def test_reasons_of_failure() -> None:
    assert table(REFERENCE, "Reasons of failure") == {str(reason): [reason.meaning] for reason in Reason}


def test_flags() -> None:
    assert table(REFERENCE, "Flags") == {str(flag): [flag.meaning] for flag in Flag}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_lead_somewhere(document: Path) -> None:
    missing = [link for link in links(document) if not (document.parent / link).exists()]
    assert missing == []


def test_what_model_hubs_and_citations_read() -> None:
    """The card's front matter and CITATION.cff are YAML, and say the version and the macro AUC that the text says."""
    _, front, text = (REPOSITORY / "models/README.md").read_text().split("---\n", 2)
    card = yaml.safe_load(front)
    assert {"license", "library_name", "datasets", "metrics", "model-index"} <= card.keys()
    for model in card["model-index"]:
        [metric] = model["results"][0]["metrics"]
        assert f"| `{model['name']}` | {metric['value']:.4f} " in text
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
