from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from hepamap.errors import OutputExistsError, OutputNotWritableError
from hepamap.model_pack import write_pack
from hepamap.networks import BACKBONES, read_weights
from hepamap.training.build import DatasetSpec, build_dataset
from hepamap.training.curves import draw_curves, read_log
from hepamap.training.errors import (
    InitialWeightsMissingError,
    ResumeImpossibleError,
    TensorBoardMissingError,
    TrainingDivergedError,
)
from hepamap.training.run_files import cut_log
from hepamap.training.train import TrainResult, train

# Keras' plateau schedule asks TensorFlow for an array in a way that NumPy 2 dislikes.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RECIPE = """
[pack]
id = "toy"
version = "1.0.0"
title = "Red against blue"
origin = "synthetic"
strides = [16, 64]
default_stride = 16
[network]
backbone = "Tiny"
head = "GAP"
mpp = 1.84
patch = 64
initialise = "lsuv"
[training]
optimiser = "sgd"
learning_rate = 0.02
batch_size = 8
steps_per_epoch = 6
epochs = 4
[fields]
per_step = 1
[augmentation]
brightness = 0.1
[schedule]
kind = "plateau"
patience = 1
cool_down = 0
stop_patience = 20
"""
STEPS = 4 * 6


def tiny(inputs: Any) -> Any:
    """The skeleton of VGG16, with dropout: its random state belongs to the state of a training."""
    from keras import layers

    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="block1_conv1")(inputs)
    x = layers.Dropout(0.3, name="block1_drop1")(x)
    x = layers.MaxPooling2D(16, name="block4_pool")(x)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="block5_conv3")(x)
    return layers.MaxPooling2D(2, name="block5_pool")(x)


def run(
    folder: Path,
    data: Path,
    resume: bool,
    kill_at: int | None = None,
    text: str = RECIPE,
    number: signal.Signals = signal.SIGKILL,
    **more: Any,
) -> TrainResult:
    """Train; kill the process, or send it another signal, at a step where one is given; no step may come after it."""
    BACKBONES["Tiny"] = tiny
    folder.mkdir(exist_ok=True)
    (folder / "toy.toml").write_text(text, encoding="utf-8")
    steps = 0

    def tell(_: Any) -> None:
        nonlocal steps
        steps += 1
        if kill_at is not None:
            assert steps <= kill_at, "it went on"
        if steps == kill_at:
            signal.raise_signal(number)

    try:
        return train(
            folder / "toy.toml", [data], folder / "run", models_dir=folder / "models", resume=resume, progress=tell, **more
        )
    finally:
        del BACKBONES["Tiny"]


def state(folder: Path) -> dict[str, NDArray[Any]]:
    """All numbers that a training left: best weights, and the last state of network, dropout and optimiser."""
    found: dict[str, NDArray[Any]] = {}
    for name in ("best.npz", "checkpoint.npz"):
        with np.load(folder / "run" / name) as file:
            found |= {f"{name}/{key}": file[key] for key in file.files if key != "state"}
    return found


def log_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "run" / "log.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def data(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "toy"
    build_dataset(cohort, folder, DatasetSpec(1.84, 64, {"train": 40, "val": 10, "test": 10}, fields=8))
    return folder


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    run(folder, data, resume=False)
    return folder


@pytest.mark.slow
def test_a_training_killed_at_a_random_step_ends_with_the_same_weights(data: Path, undisturbed: Path, tmp_path: Path) -> None:
    # Validation is told too: each of the four epochs tells its six steps and its end.
    kill_at = int(np.random.default_rng().integers(8, STEPS + 4))
    code = f"""
from pathlib import Path
from tests.training.test_resume import run
run(Path({str(tmp_path)!r}), Path({str(data)!r}), resume=True, kill_at={kill_at})
"""
    killed = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not (tmp_path / "models").exists()
    assert len(log_of(tmp_path)) < 4 or kill_at > 26

    result = run(tmp_path, data, resume=True)
    expected, found = state(undisturbed), state(tmp_path)
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=f"{name}, killed at {kill_at}")
    assert log_of(tmp_path) == log_of(undisturbed)
    assert (result.history["epochs"], result.history["steps"]) == (4, STEPS)


def test_ctrl_c_stops_a_training_after_its_step_and_it_goes_on_as_if_undisturbed(
    data: Path, undisturbed: Path, tmp_path: Path
) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, data, resume=False, kill_at=17, number=signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    assert len(log_of(tmp_path)) == 2
    run(tmp_path, data, resume=True)
    expected, found = state(undisturbed), state(tmp_path)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_a_training_that_goes_on_began_with_what_it_began_with(data: Path, tmp_path: Path) -> None:
    """A pack that is gone, or has a newer version by now, changes nothing about that."""
    run(tmp_path, data, resume=False)
    text = RECIPE.replace('id = "toy"', 'id = "other"').replace('"lsuv"', '"pack:toy"')
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "models", other / "models")
    with pytest.raises(KeyboardInterrupt):
        run(other, data, resume=False, kill_at=17, text=text, number=signal.SIGINT)
    shutil.rmtree(other / "models" / "toy")
    result = run(other, data, resume=True, text=text)
    assert "pack:toy@1.0.0" in result.history["first_weights"]


def test_the_state_holds_more_than_the_weights(undisturbed: Path) -> None:
    with np.load(undisturbed / "run" / "checkpoint.npz") as file:
        kept = json.loads(str(file["state"]))
        shapes = [file[name].shape for name in file.files if name != "state"]
    # 3 layers of kernel and bias, each with its momentum; the seed of one dropout; step and learning rate of the optimiser.
    assert len(shapes) == 2 * 6 + 1 + 2
    plateau, stop = kept["remembered"][1:]
    assert {"wait", "best", "cooldown_counter"} <= set(plateau)
    assert {"wait", "best"} <= set(stop)
    assert (kept["epochs"], kept["steps"], kept["stopped"]) == (4, STEPS, True)


def test_a_finished_training_that_lost_its_pack_is_only_evaluated(data: Path, undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(undisturbed / "run", tmp_path / "run")
    before = state(tmp_path)
    result = run(tmp_path, data, resume=True)
    for name, value in state(tmp_path).items():
        np.testing.assert_array_equal(value, before[name])
    assert result.history["steps"] == STEPS
    assert len(log_of(tmp_path)) == 4


def test_a_finished_training_is_given_again_and_nothing_is_done(data: Path, tmp_path: Path) -> None:
    """As by a loop over recipes that was interrupted in a later one."""
    first = run(tmp_path, data, resume=True)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "models").rglob("*")}
    metrics = tmp_path / "run" / "metrics.json"
    written = metrics.read_text()
    metrics.unlink()  # killed after the pack was written
    again = run(tmp_path, data, resume=True)
    assert again == first
    assert metrics.read_text() == written
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "models").rglob("*")} == before
    # A pack that another training wrote stays a reason to stop.
    pack = first.pack
    write_pack(pack.folder, pack.manifest, {name: value + 1 for name, value in pack.read_weights().items()}, "")
    with pytest.raises(OutputExistsError, match="toy/1"):
        run(tmp_path, data, resume=True)


def test_a_run_may_be_given_its_own_recipe(
    data: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(undisturbed / "run", tmp_path / "run")
    monkeypatch.setitem(BACKBONES, "Tiny", tiny)
    recipe = tmp_path / "run" / "recipe.toml"
    before = recipe.read_text()
    train(recipe, [data], tmp_path / "run", models_dir=tmp_path / "models", resume=True)
    assert recipe.read_text() == before


def test_a_log_is_cut_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log.csv"
    rows = "epoch,loss\r\n" + "".join(f"{epoch},1\r\n" for epoch in range(3))
    log.write_text(rows, newline="")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(OutputNotWritableError, match="No space left"):
            cut_log(log, 2)
    assert log.read_bytes().decode() == rows
    cut_log(log, 2)
    assert log.read_text().splitlines() == ["epoch,loss", "0,1", "1,1"]
    log.write_text("")
    with pytest.raises(ResumeImpossibleError, match=r"log\.csv"):
        cut_log(log, 2)
    log.unlink()
    with pytest.raises(ResumeImpossibleError, match=r"log\.csv"):
        cut_log(log, 2)


def test_what_cannot_go_on_is_refused(data: Path, undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(undisturbed / "run", tmp_path / "run")
    with pytest.raises(OutputExistsError) as exists:
        run(tmp_path, data, resume=False)
    assert "--resume" in exists.value.cure
    with pytest.raises(ResumeImpossibleError, match="another recipe or other data") as other:
        run(tmp_path, data, resume=True, text=RECIPE.replace("learning_rate = 0.02", "learning_rate = 0.01"))
    assert "weights:" in other.value.cure
    assert (tmp_path / "run" / "recipe.toml").read_text() == RECIPE  # of the training that is there
    checkpoint = tmp_path / "run" / "checkpoint.npz"
    checkpoint.write_bytes(checkpoint.read_bytes()[:200])
    with pytest.raises(ResumeImpossibleError, match="damaged"):
        run(tmp_path, data, resume=True)


def test_numbers_that_run_away_stop_it_and_leave_the_last_good_state(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hepamap.training import batches

    real: Callable[..., Any] = batches.TrainingBatches.__getitem__

    def spoilt(self: Any, index: int) -> Any:
        inputs, targets = real(self, index)
        if self.epoch == 2 and index == 3:
            targets["patches"] = targets["patches"] * np.float32(np.nan)
        return inputs, targets

    monkeypatch.setattr(batches.TrainingBatches, "__getitem__", spoilt)
    with pytest.raises(TrainingDivergedError, match="step 4 of the epoch"):
        run(tmp_path, data, resume=False)
    assert all(np.isfinite(value).all() for value in state(tmp_path).values())
    assert len(log_of(tmp_path)) == 2
    assert (tmp_path / "run" / "curves.png").exists()
    # The same run goes on once the reason is gone.
    monkeypatch.undo()
    assert run(tmp_path, data, resume=True).history["epochs"] == 4


def test_weights_that_run_away_unseen_by_the_loss_are_not_kept(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hepamap.training import batches

    real: Callable[..., Any] = batches.TrainingBatches.__getitem__

    def spoilt(self: Any, index: int) -> Any:
        inputs, targets = real(self, index)
        if self.epoch == 2 and index == 5:
            # A ReLU on a CPU makes 0 of what is no number: the loss does not notice, the gradient does.
            inputs["patches"] = inputs["patches"] * np.float32(np.nan)
        return inputs, targets

    monkeypatch.setattr(batches.TrainingBatches, "__getitem__", spoilt)
    with pytest.raises(TrainingDivergedError, match=r"after epoch 3|step 6"):
        run(tmp_path, data, resume=False, tensorboard=True)
    assert [step for step, _ in events_of(tmp_path, "train")["epoch_loss"]] == [0, 1]
    assert all(np.isfinite(value).all() for value in state(tmp_path).values())
    with np.load(tmp_path / "run" / "checkpoint.npz") as file:
        assert json.loads(str(file["state"]))["epochs"] == 2


def test_a_training_can_begin_with_the_weights_of_a_run(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hepamap.networks import build_network
    from hepamap.training.initialise import initialise

    monkeypatch.setitem(BACKBONES, "Tiny", tiny)
    model = build_network("Tiny", "GAP", 64)
    nothing = np.zeros((1, 64, 64, 3), np.float32)
    initialise(model, f"weights:{undisturbed / 'run' / 'best.npz'}", nothing, tmp_path, 0)
    with np.load(undisturbed / "run" / "best.npz") as best:
        for name, value in read_weights(model).items():
            np.testing.assert_array_equal(value, best[name])
    (tmp_path / "text.npz").write_text("no weights", encoding="utf-8")
    for name in ("none.npz", "text.npz"):
        with pytest.raises(InitialWeightsMissingError, match=name.replace(".", r"\.")):
            initialise(model, f"weights:{tmp_path / name}", nothing, tmp_path, 0)


def test_a_run_does_not_replace_the_weights_that_it_begins_with(
    data: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKBONES, "Tiny", tiny)
    shutil.copytree(undisturbed / "run", tmp_path / "run")
    best = tmp_path / "run" / "best.npz"
    before = best.read_bytes()
    recipe = tmp_path / "again.toml"
    recipe.write_text(RECIPE.replace('"lsuv"', f'"weights:{best}"'), encoding="utf-8")
    assert f"weights:{best}" in recipe.read_text(encoding="utf-8")
    with pytest.raises(OutputExistsError, match="a new run would replace it"):
        train(recipe, [data], tmp_path / "run", models_dir=tmp_path / "models", overwrite=True)
    assert best.read_bytes() == before


def test_curves_are_drawn_from_the_log(undisturbed: Path, tmp_path: Path) -> None:
    picture = cv2.imread(str(undisturbed / "run" / "curves.png"))
    assert picture is not None
    assert picture.shape == (440, 1100, 3)
    curves = read_log(undisturbed / "run" / "log.csv")
    assert {"loss", "val_loss", "val_fields_loss", "val_patches_accuracy"} <= set(curves)
    assert all(len(values) == 4 for values in curves.values())
    draw_curves(tmp_path / "none.csv", tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def events_of(folder: Path, part: str) -> dict[str, list[tuple[int, float]]]:
    """Step and number by tag, from a log for TensorBoard."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    found = EventAccumulator(str(folder / "run" / "tensorboard" / part)).Reload()
    return {
        tag: [(event.step, float(make_ndarray(event.tensor_proto))) for event in found.Tensors(tag)]
        for tag in found.Tags()["tensors"]
    }


def test_tensorboard_gets_the_numbers_of_the_log(data: Path, tmp_path: Path) -> None:
    text = RECIPE.replace("epochs = 4", "epochs = 2")
    run(tmp_path, data, resume=False, text=text, tensorboard=True)
    rows = log_of(tmp_path)
    assert len(rows) == 2
    events = {"": events_of(tmp_path, "train"), "val_": events_of(tmp_path, "validation")}
    for column in rows[0]:
        if column not in ("epoch", "learning_rate"):  # the board gets the next epoch's rate
            prefix = "val_" if column.startswith("val_") else ""
            expected: list[Any] = [(number, pytest.approx(float(row[column]), rel=1e-6)) for number, row in enumerate(rows)]
            assert events[prefix][f"epoch_{column.removeprefix(prefix)}"] == expected, column


def test_what_is_replaced_leaves_nothing_of_the_old_run(data: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    (run_dir / "tensorboard" / "train").mkdir(parents=True)
    for name in ("checkpoint.npz", "log.csv", "best.npz", "metrics.json", "curves.png", "tensorboard/train/old", "notes.txt"):
        (run_dir / name).write_text("old", encoding="utf-8")

    def stop(first: str) -> None:
        assert first == "lsuv (nothing taken over)"
        raise InterruptedError

    with pytest.raises(InterruptedError):
        run(tmp_path, data, resume=False, overwrite=True, begin=stop)
    assert {path.name for path in run_dir.iterdir()} == {"notes.txt", "recipe.toml"}


def test_tensorboard_that_is_not_there_is_said_at_once(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hepamap.training.train.find_spec", lambda _: None)
    with pytest.raises(TensorBoardMissingError, match="not installed"):
        train(tmp_path / "r.toml", [data], tmp_path / "run", models_dir=tmp_path, tensorboard=True)
