from __future__ import annotations

from pathlib import Path

import pytest

from hepamap.networks import NetworkInvalidError
from hepamap.training.errors import RecipeInvalidError
from hepamap.training.recipe import read_recipe

RECIPES = Path(__file__).parents[2] / "models" / "recipes"


def edited(tmp_path: Path, old: str, new: str) -> Path:
    text = (RECIPES / "hcc-5x.toml").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "r.toml").write_text(text.replace(old, new), encoding="utf-8")
    return tmp_path / "r.toml"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: str(path.stem))
def test_shipped_recipes_are_valid_and_explain_themselves(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.pack.id == path.stem.removesuffix("-start")
    assert recipe.network.patch * recipe.network.mpp == pytest.approx(117.76)
    assert recipe.pack.default_stride * recipe.network.mpp == pytest.approx(29.44)
    header = path.read_text(encoding="utf-8").split("[pack]")[0]
    for word in ("Purpose:", "Expected:", f"hepamap train models/recipes/{path.name}"):
        assert word in header


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("batch_size = 16", "batchsize = 16", r"training\.batch_size"),
        ("[augmentation]", "[augmentation]\nzoom = 2", r"augmentation\.zoom: Extra"),
        ("weight = 1.0", "wieght = 1.0", r"fields\.wieght: Extra"),
        ("learning_rate = ", "learning_rate = -", r"training\.learning_rate"),
        ('initialise = "pack:hcc-5x@1.0.0"', 'initialise = "he"', "must be lsuv"),
        ('initialise = "pack:hcc-5x@1.0.0"', 'initialise = "pack:"', "must be lsuv"),
        ("default_stride = 16", "default_stride = 17", "default_stride must be one of"),
        ("strides = [8,", "strides = [0,", "stride must be at least 1"),
        ("[pack]", "[pack", "cannot be read"),
    ],
)
def test_a_wrong_recipe_names_the_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(RecipeInvalidError, match=message) as caught:
        read_recipe(edited(tmp_path, old, new))
    assert caught.value.cure


def test_a_missing_recipe_and_an_unknown_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeInvalidError, match=r"none\.toml cannot be read: No such file"):
        read_recipe(tmp_path / "none.toml")
    with pytest.raises(NetworkInvalidError, match="VGG19"):
        read_recipe(edited(tmp_path, "VGG16DrV2", "VGG19"))
