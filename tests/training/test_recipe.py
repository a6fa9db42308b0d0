from __future__ import annotations

import re
from pathlib import Path

import pytest

from hepamap.model_pack import find_pack
from hepamap.networks import NetworkInvalidError
from hepamap.training.errors import RecipeInvalidError
from hepamap.training.recipe import read_recipe

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "models" / "recipes"


def explained(path: Path) -> tuple[str, str, str]:
    """Purpose, what is expected, and command, from the comment at the top."""
    header = path.read_text(encoding="utf-8").split("\n\n[")[0]
    text = " ".join(line.removeprefix("#").strip() for line in header.splitlines())
    found = re.fullmatch(r"Purpose: +(.+) Expected: +(.+) Command: +(.+)", text)
    assert found, text
    return found[1], found[2], found[3]


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
    purpose, expected, command = explained(path)
    assert purpose
    assert f"hepamap train models/recipes/{path.name} DATASET --run RUN" in command
    assert f"--mpp {recipe.network.mpp:g} --patch {recipe.network.patch}" in command
    assert ("--fields" in command) == (recipe.fields is not None)
    assert ("--masks" in command) == (recipe.segmentation is not None)
    if recipe.training.minutes is not None:
        assert expected.startswith(f"{recipe.training.minutes:g} minutes at most;")


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.toml")), ids=lambda path: str(path.stem))
def test_shipped_recipes_and_studies_say_what_to_expect(path: Path) -> None:
    _, expected, _ = explained(path)
    assert re.search(r"\d minutes|\d hours|\d days|two minutes", expected)
    if "not run by us" not in expected and "what it reaches is not measured" not in expected:
        assert re.search(r"(AUC|IoU) [^;]*?0\.\d{3}", expected)


@pytest.mark.parametrize("name", ["hcc-5x", "hcc-10x"])
def test_recipes_of_what_ships_expect_what_its_manifest_says(name: str) -> None:
    manifest = find_pack(ROOT / "models", name).manifest
    _, expected, _ = explained(RECIPES / f"{name}.toml")
    iou = manifest.evaluation["slides"]["at_default_threshold"]["iou"]["value"]
    for said in (
        f"{manifest.training['history']['steps']} steps",
        f"{manifest.training['history']['minutes']} minutes",
        f"patch AUC {manifest.evaluation['test']['auc']:.4f} on the test split",
        f"IoU {iou:.3f} on its test slides",
    ):
        assert said in expected


@pytest.mark.parametrize(("name", "row"), [("5x", "5X"), ("10x", "10X"), ("unet-5x", "U-Net, 5X"), ("fcn-5x", "FCN, 5X")])
def test_recipes_of_the_experiment_expect_what_came_of_it(name: str, row: str) -> None:
    text = (ROOT / "docs" / "experiment.md").read_text(encoding="utf-8").partition("### Slides of resections")[2]
    (line,) = re.findall(rf"^\| {row} \| (?:75 %|of windows) \| 0\.5 \| .*$", text.partition("### Biopsies")[0], re.MULTILINE)
    *_, auc, _, _, iou, _ = (cell.strip() for cell in line.split("|"))
    _, expected, _ = explained(RECIPES / f"experiment-{name}.toml")
    assert f"AUC {auc}, and IoU {iou.split()[0]} at the threshold 0.5" in expected


@pytest.mark.parametrize("name", ["paper-5x", "paper-10x"])
def test_the_papers_recipes_are_the_papers(name: str) -> None:
    recipe = read_recipe(RECIPES / f"{name}.toml")
    network, options, schedule = recipe.network, recipe.training, recipe.schedule
    assert (network.backbone, network.head, network.initialise) == ("VGG16DrV2", "GAP", "imagenet")
    assert (options.optimiser, options.learning_rate, options.momentum, options.decay) == ("sgd", 1e-3, 0.9, 1e-3)
    assert (options.batch_size, options.dropout, options.clip_norm, options.steps_per_epoch) == (32, 1.0, None, None)
    assert (schedule.kind, schedule.factor, schedule.patience, schedule.min_delta) == ("plateau", 0.1, 8, 2e-4)
    assert (schedule.cool_down, schedule.stop_patience, schedule.stop_min_delta) == (3, 15, 5e-4)

    # 200,000 patches of both classes, a fifth of them for validation, and as many for the test.
    _, expected, command = explained(RECIPES / f"{name}.toml")
    train, val, test = (2 * int(count) for count in re.findall(r"--(?:train|val|test) (\d+)", command))
    assert (train + val, val / (train + val), test) == (200_000, 0.2, 200_000)

    # A multiplication and an addition for each weight at each position; backwards it is twice the work.
    flop, side, inputs = 0, network.patch, 3
    for convolutions, channels in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(convolutions):
            flop += 2 * 3 * 3 * inputs * channels * side**2
            inputs = channels
        side //= 2
    epoch = (3 * train + val) * flop
    assert f"{float(f'{flop / 1e9:.2g}'):g} GFLOP" in expected
    assert f"{epoch / 1e15:.1f} PFLOP" in expected
    assert f"{epoch / 3e12 / 60:.0f} minutes on a GPU at 3 TFLOP/s" in expected
    assert f"{float(f'{epoch / 1e11 / 3600:.2g}'):g} hours on 2 cores at 0.1 TFLOP/s" in expected
    assert f"{40 * epoch / 3e12 / 3600:.0f} hours on the GPU, {40 * epoch / 1e11 / 86400:.0f} days on the cores" in expected


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
