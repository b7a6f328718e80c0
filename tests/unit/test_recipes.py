"""Recipes: those that ship fit the models that ship, and what is no recipe is one line."""

import json
from pathlib import Path

import pytest

from ecgbatch.models.training.recipe import RECIPES, load_recipe
from ecgbatch.models.weights.registry import SHIPPED, Registry
from ecgbatch.settings import EcgbatchError


@pytest.mark.parametrize("name", [path.stem for path in RECIPES.glob("*.json")])
def test_recipes_that_ship_are_of_networks_that_ship(name: str) -> None:
    settings = load_recipe(name)
    if "teacher" not in name and "tuned" not in name:
        assert settings.network == Registry(SHIPPED).find(":".join(name.rsplit("-", 1))).config


@pytest.mark.parametrize(
    "values",
    [
        {"epochs": 0},
        {"start": " "},
        {"crop": 3},
        {"crop": 2000},
        {"hold_out": 9},
        {"without_superclass": 1},
        {"learning": 1},
        {"network": {"depth": 1}},
        {"epochs": 10**400},
        {"seed": 2**70},
        [],
    ],
)
def test_a_recipe_that_cannot_be_is_one_line(values: object, tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({"network": {"patch": 10}} | values if isinstance(values, dict) else values))
    with pytest.raises(EcgbatchError) as error:
        load_recipe(str(path))
    assert "\n" not in str(error.value)
    with pytest.raises(EcgbatchError, match=r"xlstm-ecg-1\.1\.0"):
        load_recipe("no such recipe")


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b'{"seed": NaN}', b'{"seed": 1e400}', b"1" * 10_000, b" " * 2**21, b"\xff\xfe", b""],
    ids=lambda content: repr(content[:14]),
)
def test_a_recipe_that_is_no_small_json_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_bytes(content)
    with pytest.raises(EcgbatchError) as error:
        load_recipe(str(tmp_path / "recipe.json"))
    assert len(str(error.value)) < 500
    assert "\n" not in str(error.value)
