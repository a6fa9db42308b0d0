"""A recipe's numbers against what data sets hold; those of the recipes that ship against what `make` builds."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from hepamap.training.build_spec import DEFAULT_PER_CLASS, DatasetSpec
from hepamap.training.dataset import PatchSet
from hepamap.training.enough import require_enough
from hepamap.training.errors import PatchesTooFewError
from hepamap.training.fields import FieldSet
from hepamap.training.recipe import Recipe, read_recipe

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "models" / "recipes"


def patches(tumour: int, non_tumour: int) -> PatchSet:
    labels = np.repeat(np.array([1, 0], np.int8), [tumour, non_tumour])
    nothing, names = np.zeros(len(labels), np.intp), np.full(len(labels), "s")
    return PatchSet((), nothing, nothing, labels, names, names)


def fields(count: int) -> FieldSet:
    return FieldSet((), (), np.zeros((count, 2), np.intp))


def data(spec: DatasetSpec) -> tuple[dict[str, PatchSet], dict[str, FieldSet]]:
    """What a build gives that finds all it is asked for."""
    splits = {split: patches(count, count) for split, count in spec.per_class.items()}
    return splits, {split: fields(2 * count) for split, count in spec.fields_per_class.items()}


def changed(recipe: Recipe, section: str, **values: int | None) -> Recipe:
    part = getattr(recipe, section).model_copy(update=values)
    return recipe.model_copy(update={section: part})


@pytest.mark.parametrize(
    ("name", "section", "key", "most", "said"),
    [
        ("unet-5x", "segmentation", "tumour_patches", 30, "have 30 training patches of tumour"),
        ("unet-5x", "segmentation", "non_tumour_patches", 20, "have 20 training patches of non-tumour"),
        ("unet-5x", "training", "validation_patches", 12, "have 12 validation patches"),
        ("hcc-5x", "training", "validation_patches", 12, "have 12 validation patches"),
        ("hcc-5x", "fields", "validation", 5, "have 5 validation fields"),
    ],
)
def test_a_recipe_that_asks_for_more_than_there_is(name: str, section: str, key: str, most: int, said: str) -> None:
    splits = {"train": patches(30, 20), "val": patches(6, 9)}  # 12 of both classes alike
    there = {"train": fields(9), "val": fields(5)}
    recipe = changed(read_recipe(RECIPES / f"{name}.toml"), "training", validation_patches=None)
    if recipe.segmentation is not None:
        recipe = changed(recipe, "segmentation", tumour_patches=None, non_tumour_patches=None)
    if recipe.fields is not None:
        recipe = changed(recipe, "fields", validation=None)
    require_enough(recipe, splits, there)
    require_enough(changed(recipe, section, **{key: most}), splits, there)
    with pytest.raises(PatchesTooFewError, match=f"{section}.{key} = {most + 1}, but the data sets {said}") as caught:
        require_enough(changed(recipe, section, **{key: most + 1}), splits, there)
    assert "hepamap dataset build" in caught.value.cure


def built_by_make() -> dict[str, DatasetSpec]:
    """The data sets of the Makefile, by the name of their folder."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    specs = {}
    for folder, options in re.findall(r"dataset build \S+ --out (\S+) (.*)", text):
        said = {key: float(value) for key, value in re.findall(r"--(\w+) ([\d.]+)", options)}
        per_class = {split: int(said[split]) for split in ("train", "val", "test")}
        specs[folder] = DatasetSpec(said["mpp"], int(said["patch"]), per_class, fields=int(said.get("fields", 0)))
    return specs


@pytest.mark.parametrize("name", sorted(path.stem for kind in ("hcc", "experiment") for path in RECIPES.glob(f"{kind}-*.toml")))
def test_what_make_builds_is_enough_for_its_recipes(name: str) -> None:
    scale = "10x" if "10x" in name else "5x"
    folder = f"$(EXPERIMENT)/patches-{scale}" if name.startswith("experiment") else f"build/patches-{scale}"
    require_enough(read_recipe(RECIPES / f"{name}.toml"), *data(built_by_make()[folder]))


@pytest.mark.parametrize("name", ["unet-5x", "fcn-5x"])
def test_the_default_numbers_are_enough_for_the_comparison_models(name: str) -> None:
    require_enough(read_recipe(RECIPES / f"{name}.toml"), *data(DatasetSpec(1.84, 64, DEFAULT_PER_CLASS)))
