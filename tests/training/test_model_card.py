"""The steps of a model card, done as they are written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hepamap.model_pack import CARD_NAME, InputSpec, ManifestBody, NetworkSpec, find_pack, list_packs
from hepamap.training.model_card import own_weights
from hepamap.training.recipe import Recipe, read_recipe
from tests.packs import manifest_body

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"


def follow(card: str, folder: Path) -> tuple[Recipe, str]:
    """Copy the recipe that a card names and change in it what the card says; returns it with the command of the data set."""
    _, _, steps = card.partition("## Putting your own weights in")
    (name,) = re.findall(r"`models/recipes/(.+?\.toml)`", steps)
    text = (MODELS / "recipes" / name).read_text(encoding="utf-8")
    for key, value in re.findall(r"`(\w+) = (.+?)`", steps):
        text, found = re.subn(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)
        assert found == 1, key
    (folder / "my-recipe.toml").write_text(text, encoding="utf-8")
    (command,) = re.findall(r"`(hepamap dataset build .+?)`", steps)
    return read_recipe(folder / "my-recipe.toml"), command


def body(backbone: str, head: str, mpp: float, patch: int) -> ManifestBody:
    kind = "segmentation" if head == "PIXELS" else "classification"
    network = NetworkSpec.model_validate({"kind": kind, "backbone": backbone, "head": head})
    changes = {"network": network, "input": InputSpec(mpp=mpp, patch=patch), "strides": (patch,), "default_stride": patch}
    return manifest_body("mine").model_copy(update=changes)


CARDS = {pack.name: (pack.folder / CARD_NAME).read_text(encoding="utf-8") for pack in list_packs(MODELS)} | {
    f"{backbone}-{mpp}-{patch}": own_weights(body(backbone, head, mpp, patch))
    for backbone, head, mpp, patch in (
        ("VGG16DrV2", "GAP", 1.84, 64),
        ("VGG16DrV2", "FC512", 0.92, 128),
        ("VGG16DrV2", "GAP", 0.5, 256),
        ("UNet", "PIXELS", 1.84, 64),
        ("FCN8s", "PIXELS", 1.84, 64),
    )
}


@pytest.mark.parametrize("name", CARDS)
def test_the_steps_of_a_card_work_with_what_ships(name: str, tmp_path: Path) -> None:
    recipe, command = follow(CARDS[name], tmp_path)
    assert f"--mpp {recipe.network.mpp:g} --patch {recipe.network.patch}" in command
    assert (recipe.fields is not None) == ("--fields" in command)
    assert (recipe.segmentation is not None) == ("--masks" in command)
    assert recipe.pack.origin == "own"
    kind, _, pack = recipe.network.initialise.partition(":")
    assert kind in ("lsuv", "pack")
    if kind == "pack":
        find_pack(MODELS, pack)
