"""A study of trainings as a TOML file: what is the same in all runs, and what changes. An unknown key is an error."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hepamap.networks.registry import check_network
from hepamap.training.errors import RecipeInvalidError
from hepamap.training.recipe import DECAY, AugmentationSection, Recipe, ScheduleSection, is_absent

Optimiser = Literal["sgd", "adam"]
Distinct = Field(min_length=1, max_length=1000)

_EPOCHS_BY_TIME = 100_000  # more than any time holds
_STEPS_PER_EPOCH_BY_TIME = 50


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NetworkSection(_Strict):
    """What every network of the study looks at, and where it starts."""

    mpp: float = Field(ge=0.1, le=20, description="Resolution, µm/px.")
    patch: int = Field(ge=32, le=1024, description="Patch side, px; a multiple of 32.")
    initialise: str = Field(description="As in a recipe: lsuv, imagenet, imagenet:<file>, pack:<id>, weights:<file>.")


class DataSection(_Strict):
    """How many patches of a data set are used, both classes together and equally many."""

    train: int | None = Field(default=None, ge=2, description="For training; all if absent. A data-size study names its own.")
    validation: int | None = Field(default=None, ge=2, description="To choose the best epoch by; all if absent.")
    test: int | None = Field(default=None, ge=2, description="For the score of a run; all if absent.")


class BudgetSection(_Strict):
    """How long each run trains: by steps or patches, by minutes, or by whichever ends first."""

    steps: int | None = Field(default=None, ge=1, description="Batches, whatever their size.")
    patches: int | None = Field(
        default=None,
        ge=1,
        description="Patches seen, counted with repetition; as near as whole batches in equal epochs come to it.",
    )
    minutes: float | None = Field(default=None, gt=0, description="At most.")
    validations: int = Field(default=5, ge=1, description="Epochs that steps or patches are divided into.")

    @model_validator(mode="after")
    def _has_one(self) -> BudgetSection:
        if self.steps is not None and self.patches is not None:
            raise ValueError("give steps or patches, not both")
        if self.steps is None and self.patches is None and self.minutes is None:
            raise ValueError("give steps, patches or minutes")
        return self

    def epochs(self, batch_size: int) -> tuple[int, int]:
        """Epochs, and steps in each; at least one of both."""
        if self.steps is None and self.patches is None:
            return _EPOCHS_BY_TIME, _STEPS_PER_EPOCH_BY_TIME
        steps = self.steps or max(1, round((self.patches or 0) / batch_size))
        epochs = min(self.validations, steps)
        return epochs, max(1, round(steps / epochs))


class OptimiserSection(_Strict):
    """One optimiser's numbers."""

    learning_rate: float = Field(gt=0, le=1)
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Of sgd.")
    decay: float | None = Field(default=None, gt=0, le=1, description=DECAY, exclude_if=is_absent)
    clip_norm: float | None = Field(default=None, gt=0, description="Largest norm of a gradient.")


class TrainingSection(_Strict):
    """What is the same in all trainings."""

    dropout: float = Field(default=1.0, ge=0, le=1, description="Factor of the networks' own dropout rates while they train.")
    precision: Literal["auto", "float32", "mixed_bfloat16"] = "float32"
    seed: int = Field(default=0, ge=0, description="Of the first repeat; the next ones count on.")
    sgd: OptimiserSection
    adam: OptimiserSection


class FactorsSection(_Strict):
    """What changes from run to run in a factor study."""

    backbones: Annotated[tuple[str, ...], Distinct]
    heads: Annotated[tuple[str, ...], Distinct]
    batch_sizes: Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Distinct]
    optimisers: Annotated[tuple[Optimiser, ...], Distinct]
    repeats: int = Field(ge=1, le=100)


class SizesSection(_Strict):
    """What changes from run to run in a data-size study, and the one network that is trained."""

    patches: Annotated[tuple[Annotated[int, Field(ge=2, multiple_of=2)], ...], Distinct]
    repeats: int = Field(ge=1, le=100)
    backbone: str
    head: str
    batch_size: int = Field(ge=1, le=4096)
    optimiser: Optimiser


class Study(_Strict):
    """What both kinds of study say."""

    network: NetworkSection
    data: DataSection = DataSection()
    budget: BudgetSection
    training: TrainingSection
    augmentation: AugmentationSection = AugmentationSection()
    schedule: ScheduleSection


class FactorStudy(Study):
    """The paper's figure 3."""

    factors: FactorsSection


class DataSizeStudy(Study):
    """The paper's figure 4."""

    sizes: SizesSection


@dataclass(frozen=True, slots=True)
class Configuration:
    """The factors of one run."""

    backbone: str
    head: str
    batch_size: int
    optimiser: Optimiser


AnyStudy = TypeVar("AnyStudy", bound=Study)


def read_study(path: Path, kind: type[AnyStudy]) -> AnyStudy:
    """Read and check a study file.

    Raises:
        RecipeInvalidError: it cannot be read, is no TOML, has an unknown key, a value out of range or the same one twice.
        NetworkInvalidError: no such network, or a patch that fits none.
    """
    example = "studies/factors.toml" if issubclass(kind, FactorStudy) else "studies/data-size.toml"
    try:
        study = kind.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        for configuration in _configurations(study):
            check_network(configuration.backbone, configuration.head, study.network.patch)
            recipe_of(study, configuration, repeat=0)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeInvalidError(
            f"The study {path.name} cannot be read: {getattr(error, 'strerror', None) or error}.",
            cure=f"Give a TOML file such as models/recipes/{example}.",
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise RecipeInvalidError(
            f"The study {path.name} is not valid: {where}: {first['msg']}.", cure=f"Compare it with models/recipes/{example}."
        ) from error
    _require_distinct(path, study)
    return study


def recipe_of(study: Study, configuration: Configuration, repeat: int) -> Recipe:
    """The recipe of one run; `repeat` counts from 0 and decides first weights and order of the patches."""
    optimiser = study.training.sgd if configuration.optimiser == "sgd" else study.training.adam
    epochs, steps_per_epoch = study.budget.epochs(configuration.batch_size)
    return Recipe.model_validate(
        {
            # A run of a study ends in a score, not in a pack.
            "pack": {
                "id": "study", "version": "0.0.0", "title": "Run of a study", "origin": "own",
                "strides": [study.network.patch], "default_stride": study.network.patch,
            },
            "network": {"backbone": configuration.backbone, "head": configuration.head, **study.network.model_dump()},
            "training": {
                "optimiser": configuration.optimiser,
                **optimiser.model_dump(),
                "batch_size": configuration.batch_size,
                "dropout": study.training.dropout,
                "steps_per_epoch": steps_per_epoch,
                "epochs": epochs,
                "minutes": study.budget.minutes,
                "precision": study.training.precision,
                "seed": study.training.seed + repeat,
            },
            "augmentation": study.augmentation.model_dump(),
            "schedule": study.schedule.model_dump(),
        }
    )  # fmt: skip


def _configurations(study: Study) -> list[Configuration]:
    """One configuration for each name, so that each is checked."""
    if isinstance(study, FactorStudy):
        factors = study.factors
        return [
            Configuration(backbone, head, factors.batch_sizes[0], optimiser)
            for backbone in factors.backbones
            for head in factors.heads
            for optimiser in factors.optimisers
        ]
    assert isinstance(study, DataSizeStudy)
    sizes = study.sizes
    return [Configuration(sizes.backbone, sizes.head, sizes.batch_size, sizes.optimiser)]


def _require_distinct(path: Path, study: Study) -> None:
    section: BaseModel = study.factors if isinstance(study, FactorStudy) else study.sizes  # type: ignore[attr-defined]
    for name, values in section.model_dump().items():
        if isinstance(values, tuple) and len(set(values)) < len(values):
            raise RecipeInvalidError(f"The study {path.name} names a value twice in “{name}”.", cure="Remove one of them.")
