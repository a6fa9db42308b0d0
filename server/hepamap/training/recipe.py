"""Recipes: how one model is trained, as a TOML file. An unknown key is an error, so that a slip of the pen is none."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hepamap.networks.dense import can_be_dense
from hepamap.networks.registry import HEADS, PIXELS, check_network
from hepamap.training.errors import RecipeInvalidError

DECAY = "Of sgd: the learning rate is divided by 1 + decay × step; the paper: 0.001."


def is_absent(value: float | None) -> bool:
    """Left out where it is not set: what was trained before there was this key is the same work."""
    return value is None


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PackSection(_Strict):
    """What the finished pack is called."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", description="Name of the model, e.g. hcc-5x.")
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$", description="A change of weights is a new version.")
    title: str = Field(description="One line for people.")
    origin: Literal["synthetic", "own"] = Field(description="synthetic: painted slides; own: a lab's annotated slides.")
    strides: tuple[int, ...] = Field(min_length=1, description="Strides that may be asked for, model px.")
    default_stride: int = Field(description="Stride used unless another is asked for, model px.")
    licence: str = Field(default="Apache-2.0", description="Licence of the weights.")


class NetworkSection(_Strict):
    """Which network, and what it looks at."""

    backbone: str = Field(description="Name in the registry, e.g. VGG16DrV2; UNet or FCN8s with the head PIXELS.")
    head: str = Field(description="FC512, FC512L2 or GAP; PIXELS for a network that answers for every pixel.")
    mpp: float = Field(ge=0.1, le=20, description="Resolution, µm/px.")
    patch: int = Field(ge=32, le=1024, description="Patch side, px; a multiple of 32.")
    initialise: str = Field(
        description="lsuv (from nothing), pack:<id>[@version], weights:<run>/best.npz, imagenet (downloaded), imagenet:<file.h5>."
    )

    @field_validator("initialise")
    @classmethod
    def _is_known(cls, value: str) -> str:
        kind, _, name = value.partition(":")
        if value not in ("lsuv", "imagenet") and not (kind in ("pack", "weights", "imagenet") and name):
            raise ValueError("must be lsuv, imagenet, imagenet:<file>, weights:<file.npz> or pack:<id>")
        return value


class TrainingSection(_Strict):
    """Optimiser and effort."""

    optimiser: Literal["sgd", "adam"] = Field(description="sgd (with momentum) or adam.")
    learning_rate: float = Field(gt=0, le=1)
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Of sgd.")
    decay: float | None = Field(default=None, gt=0, le=1, description=DECAY, exclude_if=is_absent)
    clip_norm: float | None = Field(default=None, gt=0, description="Largest norm of a gradient; guards the first steps.")
    batch_size: int = Field(ge=1, le=4096)
    dropout: float = Field(
        default=1.0, ge=0, le=1, description="Factor of the network's own dropout rates while it trains; 0 is without."
    )
    steps_per_epoch: int | None = Field(
        default=None, ge=1, description="Batches between two validations; every patch once where it is absent."
    )
    epochs: int = Field(ge=1, description="At most.")
    minutes: float | None = Field(default=None, gt=0, description="Stop then, keep the best weights; no limit if absent.")
    validation_patches: int | None = Field(default=None, ge=2, description="How many are drawn for validation; all if absent.")
    precision: Literal["auto", "float32", "mixed_bfloat16"] = Field(
        default="float32", description="auto: mixed_bfloat16 on GPUs and on CPUs that have instructions for it, else float32."
    )
    seed: int = Field(default=0, ge=0)


class FieldsSection(_Strict):
    """Training on fields too, so that the network is right in dense mode; absent: on patches alone."""

    per_step: int = Field(ge=1, le=1024, description="Fields in each step, beside its patches.")
    weight: float = Field(default=1.0, gt=0, le=100, description="Of the fields' loss against that of the patches.")
    validation: int | None = Field(default=None, ge=2, description="How many are drawn for validation; all if absent.")


class SegmentationSection(_Strict):
    """Training on the masks of patches, for the head PIXELS: a label for every pixel that has one."""

    tumour_patches: int | None = Field(
        default=None, ge=1, description="How many of the training patches are used; all if absent."
    )
    non_tumour_patches: int | None = Field(
        default=None, ge=1, description="The same of the other class; the paper: half as many."
    )


class AugmentationSection(_Strict):
    """Random changes of each training patch and field."""

    flips: bool = Field(default=True, description="Mirror along x and y.")
    rotations: bool = Field(default=True, description="Turn by 90, 180, 270 degrees.")
    brightness: float = Field(default=0.0, ge=0, lt=0.5, description="Light up to this share brighter or darker.")
    stain: float = Field(
        default=0.0, ge=0, lt=1, description="Optical density of each colour channel up to this share higher or lower."
    )


class ScheduleSection(_Strict):
    """How the learning rate falls, and when to stop early."""

    kind: Literal["plateau", "cosine"] = Field(
        description="plateau: the paper's; cosine: from full to almost none over the epochs (or the minutes, if they end first)."
    )
    warm_up_steps: int = Field(default=0, ge=0, description="Steps over which the learning rate rises from 0.")
    factor: float = Field(default=0.1, gt=0, lt=1, description="Plateau: the learning rate is multiplied by it …")
    patience: int = Field(default=8, ge=1, description="… after so many epochs …")
    min_delta: float = Field(default=2e-4, ge=0, description="… without this much better validation accuracy …")
    cool_down: int = Field(default=3, ge=0, description="… and then not for so many epochs.")
    stop_patience: int | None = Field(default=15, ge=1, description="Stop after so many epochs without …")
    stop_min_delta: float = Field(default=5e-4, ge=0, description="… this much better validation accuracy.")


class Recipe(_Strict):
    """One recipe file."""

    pack: PackSection
    network: NetworkSection
    training: TrainingSection
    fields: FieldsSection | None = None
    segmentation: SegmentationSection | None = None
    augmentation: AugmentationSection = AugmentationSection()
    schedule: ScheduleSection

    @model_validator(mode="after")
    def _decay_is_of_sgd(self) -> Recipe:
        if self.training.decay is not None and self.training.optimiser != "sgd":
            raise ValueError("training.decay belongs to the optimiser sgd")
        return self

    @model_validator(mode="after")
    def _strides_fit(self) -> Recipe:
        if self.pack.default_stride not in self.pack.strides:
            raise ValueError("pack.default_stride must be one of pack.strides")
        if any(stride < 1 or stride > self.network.patch for stride in self.pack.strides):
            raise ValueError("a stride must be at least 1 and at most the patch side")
        return self

    @model_validator(mode="after")
    def _head_fits_masks(self) -> Recipe:
        if (self.segmentation is not None) != (self.network.head == PIXELS):
            raise ValueError("the head PIXELS needs a section [segmentation], and no other head has one")
        if self.segmentation is not None and self.fields is not None:
            raise ValueError("a network with the head PIXELS is trained on masks, not on fields")
        return self

    @model_validator(mode="after")
    def _head_fits_fields(self) -> Recipe:
        if self.fields is not None and self.network.head in HEADS and not can_be_dense(self.network.head):
            raise ValueError(f"fields need a network with a dense mode, and the head {self.network.head} has none; GAP has")
        return self


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        RecipeInvalidError: it cannot be read, is no TOML, has an unknown key or a value out of range.
        NetworkInvalidError: no such network.
    """
    try:
        recipe = Recipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeInvalidError(
            f"The recipe {path.name} cannot be read: {getattr(error, 'strerror', None) or error}.",
            cure="Give a TOML file such as models/recipes/hcc-5x.toml.",
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise RecipeInvalidError(
            f"The recipe {path.name} is not valid: {where}: {first['msg']}.",
            cure="Compare it with models/recipes/hcc-5x.toml.",
        ) from error
    check_network(recipe.network.backbone, recipe.network.head, recipe.network.patch)
    return recipe
