from __future__ import annotations

from pathlib import Path

import pytest

from hepamap.errors import ParameterError
from hepamap.networks import NetworkInvalidError
from hepamap.training.errors import RecipeInvalidError
from hepamap.training.recipe import ScheduleSection
from hepamap.training.studies.factors import Selection, chosen_factors
from hepamap.training.studies.plan import BudgetSection, Configuration, DataSizeStudy, FactorStudy, read_study, recipe_of
from tests.training.studies.tiny import SIZES, study_file

STUDIES = Path(__file__).parents[3] / "models" / "recipes" / "studies"

pytestmark = pytest.mark.usefixtures("tiny_networks")


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.toml")), ids=lambda path: str(path.stem))
def test_shipped_studies_are_valid_and_explain_themselves(path: Path) -> None:
    kind = "factors" if "factors" in path.stem else "data-size"
    study = read_study(path, FactorStudy if kind == "factors" else DataSizeStudy)
    assert study.network.patch * study.network.mpp == pytest.approx(117.76)
    header = path.read_text(encoding="utf-8").split("[")[0]
    for word in ("Purpose:", "Expected:", f"hepamap study {kind} models/recipes/studies/{path.name}"):
        assert word in header


def test_the_full_studies_are_the_papers() -> None:
    study = read_study(STUDIES / "factors.toml", FactorStudy)
    chosen = chosen_factors(study, Selection())
    assert [len(values) for values in chosen.values()] == [8, 3, 4, 2]
    assert study.factors.repeats == 3
    assert study.data.train is not None
    assert study.data.validation is not None
    patches = study.data.train + study.data.validation
    assert (patches, study.data.validation / patches, study.data.test) == (50_000, 0.2, 200_000)
    assert study.budget.epochs(32) == (30, study.data.train / 32)

    size = read_study(STUDIES / "data-size.toml", DataSizeStudy)
    assert (size.sizes.backbone, size.sizes.head, size.sizes.batch_size, size.sizes.optimiser) == ("VGG16", "FC512", 32, "sgd")
    assert (size.sizes.patches[0], size.sizes.patches[-1] + (size.data.validation or 0)) == (10, 200_000)

    for whole in (study, size):
        sgd, adam, schedule = whole.training.sgd, whole.training.adam, whole.schedule
        assert whole.network.initialise == "imagenet"
        assert (sgd.learning_rate, sgd.momentum, sgd.decay, adam.learning_rate) == (1e-3, 0.9, 1e-3, 1e-3)
        assert schedule == ScheduleSection(kind="plateau")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("batch_sizes", "batchsizes", "batch"),
        ("learning_rate = 0.02", "learning_rat = 0.02", "training.sgd"),
        ("learning_rate = 0.02", "learning_rate = 2.0", "training.sgd.learning_rate"),
        ('optimisers = ["sgd", "adam"]', 'optimisers = ["sgd", "rmsprop"]', "factors.optimisers"),
        ("steps = 4", "steps = 4\npatches = 32", "not both"),
        ("steps = 4\n", "", "steps, patches or minutes"),
        ("batch_sizes = [8, 16]", "batch_sizes = [8, 8]", "twice"),
        ("batch_sizes = [8, 16]", "batch_sizes = []", "factors.batch_sizes"),
        ('initialise = "lsuv"', 'initialise = "luck"', "network.initialise"),
        ("[schedule]", "[schedule", "cannot be read"),
    ],
)
def test_a_slip_of_the_pen_is_an_error(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(RecipeInvalidError, match=said.replace(".", r"\.")) as caught:
        read_study(study_file(tmp_path, (old, new)), FactorStudy)
    assert "models/recipes/studies/factors.toml" in caught.value.cure or "twice" in said


def test_unknown_networks_and_patches_are_errors(tmp_path: Path) -> None:
    with pytest.raises(NetworkInvalidError, match="VGG19"):
        read_study(study_file(tmp_path, ('"TinyB"', '"VGG19"')), FactorStudy)
    with pytest.raises(NetworkInvalidError, match="70 px"):
        read_study(study_file(tmp_path, ("patch = 64", "patch = 70")), FactorStudy)
    with pytest.raises(RecipeInvalidError, match="multiple of 2"):
        read_study(study_file(tmp_path, ("[2, 64]", "[2, 9]"), text=SIZES), DataSizeStudy)


def test_a_selection_keeps_the_order_of_the_study(tmp_path: Path) -> None:
    study = read_study(study_file(tmp_path), FactorStudy)
    chosen = chosen_factors(study, Selection(backbones=["TinyB", "TinyA"], batch_sizes=[16]))
    assert chosen == {"backbone": ["TinyA", "TinyB"], "head": ["GAP"], "batch_size": [16], "optimiser": ["sgd", "adam"]}
    with pytest.raises(ParameterError, match="no batch size “32”") as caught:
        chosen_factors(study, Selection(batch_sizes=[32]))
    assert "8, 16" in caught.value.cure


@pytest.mark.parametrize(
    ("budget", "batch_size", "expected"),
    [
        ({"steps": 100, "validations": 5}, 32, (5, 20)),
        ({"steps": 3, "validations": 5}, 32, (3, 1)),
        ({"patches": 6400, "validations": 5}, 32, (5, 40)),
        ({"patches": 6400, "validations": 5}, 256, (5, 5)),
        ({"patches": 100, "validations": 5}, 256, (1, 1)),
        ({"minutes": 2.0}, 32, (100_000, 50)),
    ],
)
def test_a_budget_is_steps_or_patches_or_time(budget: dict[str, float], batch_size: int, expected: tuple[int, int]) -> None:
    assert BudgetSection.model_validate(budget).epochs(batch_size) == expected


def test_a_run_has_its_factors_and_a_seed_of_its_own(tmp_path: Path) -> None:
    study = read_study(study_file(tmp_path), FactorStudy)
    recipe = recipe_of(study, Configuration("TinyB", "GAP", 16, "adam"), repeat=2)
    options = recipe.training
    assert (recipe.network.backbone, recipe.network.head, options.batch_size, options.optimiser) == ("TinyB", "GAP", 16, "adam")
    assert (options.learning_rate, options.seed, options.epochs, options.steps_per_epoch) == (0.001, 5, 2, 2)
