"""A study that is done in seconds: two tiny networks on toy patches. Also run as a process of its own, to be killed."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hepamap.networks import BACKBONES
from hepamap.training.studies.factors import Selection, study_factors

STUDY = """
[factors]
backbones = ["TinyA", "TinyB"]
heads = ["GAP"]
batch_sizes = [8, 16]
optimisers = ["sgd", "adam"]
repeats = 1
[network]
mpp = 1.84
patch = 64
initialise = "lsuv"
[data]
train = 60
validation = 16
test = 20
[budget]
steps = 4
validations = 2
[training]
seed = 3
[training.sgd]
learning_rate = 0.02
[training.adam]
learning_rate = 0.001
[augmentation]
[schedule]
kind = "cosine"
"""
_SECTION = """
[sizes]
patches = [2, 64]
repeats = 1
backbone = "TinyA"
head = "GAP"
batch_size = 8
optimiser = "sgd"
"""
SIZES = _SECTION + STUDY[STUDY.index("[network]") :].replace("train = 60\n", "")


def tiny(width: int) -> Callable[[Any], Any]:
    """The skeleton of VGG16, with dropout."""

    def build(inputs: Any) -> Any:
        from keras import layers

        x = layers.Conv2D(width, 3, padding="same", activation="relu", name="block1_conv1")(inputs)
        x = layers.Dropout(0.3, name="block1_drop1")(x)
        x = layers.MaxPooling2D(16, name="block4_pool")(x)
        x = layers.Conv2D(8, 3, padding="same", activation="relu", name="block5_conv3")(x)
        return layers.MaxPooling2D(2, name="block5_pool")(x)

    return build


PART = Selection(backbones=["TinyA"])
"""Four runs: two batch sizes, two optimisers."""

TINY = {"TinyA": tiny(3), "TinyB": tiny(4)}


def study_file(folder: Path, *edits: tuple[str, str], text: str = STUDY) -> Path:
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.toml").write_text(text, encoding="utf-8")
    return folder / "study.toml"


def run(folder: Path, data: Path, kill_at: int | None = None, selection: Selection = PART, **more: Any) -> list[str]:
    """Run the study in `folder / "out"`; kill this process at a step where one is given.

    Returns:
        Names of the runs that were done now.
    """
    steps, finished = 0, []

    def tell(step: Any) -> None:
        nonlocal steps
        steps += 1
        if step.finished is not None:
            finished.append(step.run)
        if steps == kill_at:
            signal.raise_signal(signal.SIGKILL)

    BACKBONES.update(TINY)
    try:
        path = folder / "study.toml"
        study_factors(path, [data], folder / "out", models_dir=folder, selection=selection, tell=tell, **more)
    finally:
        for name in TINY:
            BACKBONES.pop(name, None)
    return finished
