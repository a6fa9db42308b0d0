"""Recipe and data sets to a model pack: what `hepamap train` does. Keras is imported when training begins."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from hepamap import __version__
from hepamap.errors import ModelError, OutputExistsError, OutputNotWritableError
from hepamap.interrupts import interrupts_deferred
from hepamap.model_pack import InputSpec, ManifestBody, Mode, ModelPack, NetworkSpec, load_pack, require_writable, write_pack
from hepamap.networks import build_network, set_weights
from hepamap.networks.dense import can_be_dense
from hepamap.predictor import start_backend
from hepamap.training.curves import draw_curves
from hepamap.training.dataset import Dataset, PatchSet, combine, open_dataset
from hepamap.training.enough import require_enough
from hepamap.training.errors import DatasetEmptyError, TensorBoardMissingError
from hepamap.training.evaluation.operating_points import choose_thresholds, measured_points, remarks
from hepamap.training.fields import FieldSet, combine_fields
from hepamap.training.metrics import patch_metrics
from hepamap.training.model_card import INTENDED_USE, model_card
from hepamap.training.recipe import Recipe, read_recipe
from hepamap.training.room import require_room
from hepamap.training.run_files import (
    BEST_NAME,
    CHECKPOINT_NAME,
    LOG_NAME,
    TENSORBOARD_NAME,
    read_npz,
    read_progress,
    write_text,
)

if TYPE_CHECKING:
    from hepamap.training.callbacks import TrainProgress

Weights = dict[str, NDArray[Any]]

METRICS_NAME, RECIPE_NAME, CURVES_NAME = "metrics.json", "recipe.toml", "curves.png"
METRICS_OF = {"val": "validation", "test": "test"}
"""Where scores stand in `evaluation`, by split."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A finished training."""

    pack: ModelPack
    run_dir: Path
    """Log, best weights in float32, metrics, a copy of the recipe."""
    metrics: dict[str, Any]
    """As in the manifest: `validation` and `test`, each with `auc` and more."""
    history: dict[str, Any]
    """Epochs done, the best of them, why it stopped, how long it took."""


def train(
    recipe_path: Path,
    dataset_dirs: Sequence[Path],
    run_dir: Path,
    *,
    models_dir: Path,
    overwrite: bool = False,
    resume: bool = False,
    tensorboard: bool = False,
    begin: Callable[[str], None] = lambda _: None,
    progress: Callable[[TrainProgress], None] = lambda _: None,
) -> TrainResult:
    """Train a network and write its pack to `<models_dir>/<id>/<version>`.

    Args:
        recipe_path: a TOML recipe.
        dataset_dirs: data sets made by `build_dataset`; they need the splits train and val, and test for test scores.
        run_dir: folder for log, curves, best weights so far and the state after the last epoch (also after a crash), metrics.
        models_dir: where packs are; a recipe may start from one of them.
        overwrite: replace a pack or run that is there.
        resume: go on after the last finished epoch of a training in the same run folder that was killed; it ends with the
            weights that it would have had (where the machine computes the same twice, as CPUs do). One that is finished is
            left as it is.
        tensorboard: write a log for TensorBoard too.
        begin: told what the network begins with, before the first step.
        progress: told after every step.

    Raises:
        RecipeInvalidError, DatasetInvalidError, DatasetEmptyError, PatchesTooFewError, OutputExistsError, OutputNotWritableError:
            before anything is computed.
        ModelNotFoundError, InitialWeightsMissingError: what to begin with is not there or of another network; before the first
            step.
        ResumeImpossibleError: the run in the folder had another recipe or other data.
        TrainingDivergedError: the loss is no longer a number; the run folder keeps the last good state.
    """
    if tensorboard and find_spec("tensorboard") is None:
        raise TensorBoardMissingError(
            "TensorBoard is not installed.", cure="Install it (pip install 'hepamap[tensorboard]'), or leave --tensorboard away."
        )
    recipe = read_recipe(recipe_path)
    pack_dir = models_dir / recipe.pack.id / recipe.pack.version
    datasets = [open_dataset(folder) for folder in dataset_dirs]
    splits, fields = _data(recipe, datasets)
    work = _work(recipe, datasets)
    done = read_progress(run_dir / CHECKPOINT_NAME, work) if resume else None
    if done is not None and done.stopped and (pack := _own_pack(pack_dir, run_dir)) is not None:
        return _finished(pack, run_dir)
    require_writable(pack_dir)
    if done is None:
        require_room(run_dir, recipe.network.head, recipe.network.patch)
        _keep_first_weights(recipe.network.initialise, run_dir)
    _prepare(run_dir, pack_dir, overwrite=overwrite, resume=resume)
    _copy_recipe(recipe_path, run_dir / RECIPE_NAME)

    start_backend()  # before anything else imports keras
    from hepamap.training.fitting import fit

    try:
        weights, history = fit(
            recipe, splits, fields, run_dir, models_dir, work=work, tensorboard=tensorboard, begin=begin, progress=progress
        )
    finally:
        draw_curves(run_dir / LOG_NAME, run_dir / CURVES_NAME)  # also of a training that failed: they show how
    metrics, thresholds, judged = _evaluate(recipe, weights, splits)
    body = _manifest(recipe, datasets, history, metrics, measured_points(thresholds, judged[0] == 1, judged[1]))
    pack = write_pack(pack_dir, body, weights, model_card(body, recipe.pack.origin))
    return _finished(pack, run_dir)


def _own_pack(pack_dir: Path, run_dir: Path) -> ModelPack | None:
    """The pack that a finished training wrote before it was stopped, if what is there is that."""
    try:
        pack = load_pack(pack_dir)
        shipped, best = pack.read_weights(), read_npz(run_dir / BEST_NAME)
    except (ModelError, OSError, ValueError):
        return None
    rounded = {name: value.astype(np.float16).astype(np.float32) for name, value in best.items()}
    is_own = shipped.keys() == rounded.keys() and all(np.array_equal(shipped[name], rounded[name]) for name in rounded)
    return pack if is_own else None


def _finished(pack: ModelPack, run_dir: Path) -> TrainResult:
    """The last step of a training: its scores beside it, as the pack has them."""
    manifest = pack.manifest
    history = manifest.training["history"]
    metrics = {name: manifest.evaluation[name] for name in METRICS_OF.values() if name in manifest.evaluation}
    text = json.dumps({"pack": pack.name, "history": history, "metrics": metrics}, indent=2) + "\n"
    write_text(run_dir / METRICS_NAME, text)
    return TrainResult(pack, run_dir, metrics, history)


def _copy_recipe(source: Path, copy: Path) -> None:
    """Keep what was asked for; it may be the copy itself that is given again."""
    if copy.exists() and source.samefile(copy):
        return
    write_text(copy, source.read_text(encoding="utf-8"))


def _data(recipe: Recipe, datasets: Sequence[Dataset]) -> tuple[dict[str, PatchSet], dict[str, FieldSet]]:
    """Patches and fields by split, with all that the recipe needs."""
    splits, fields = combine(datasets, recipe.network.mpp, recipe.network.patch), combine_fields(datasets)
    _check_splits(splits)
    if recipe.fields is not None:
        _check_fields(fields)
    if recipe.segmentation is not None and not splits["train"].masks:
        raise DatasetEmptyError(
            "The recipe trains on masks, but not all data sets have them.",
            cure="Build the data set with `hepamap dataset build … --masks`.",
        )
    require_enough(recipe, splits, fields)
    return splits, fields


def _check_splits(splits: dict[str, PatchSet]) -> None:
    for name in ("train", "val"):
        if len(set(splits[name].labels.tolist())) < 2:
            raise DatasetEmptyError(
                f"The data sets have no “{name}” split with patches of both classes.",
                cure="Add slides of that split to the cohort table and build the data set again.",
            )


def _check_fields(fields: dict[str, FieldSet]) -> None:
    for name, of_split in fields.items():
        if not len(of_split):
            raise DatasetEmptyError(
                f"The recipe trains on fields, but the data sets have none in the split “{name}”.",
                cure="Build a data set with `hepamap dataset build … --fields N`, or remove [fields] from the recipe.",
            )


def _work(recipe: Recipe, datasets: Sequence[Dataset]) -> str:
    """What is trained on what: decides whether a training may go on."""
    hashed = hashlib.sha256(recipe.model_dump_json().encode())
    for dataset in datasets:
        hashed.update(json.dumps(dataset.manifest, sort_keys=True).encode())
    return hashed.hexdigest()


def _keep_first_weights(initialise: str, run_dir: Path) -> None:
    kind, _, name = initialise.partition(":")
    if kind == "weights" and Path(name).resolve() == (run_dir / BEST_NAME).resolve():
        raise OutputExistsError(
            f"The recipe begins with {name}, which is the run folder's own: a new run would replace it.",
            cure="Train into another run folder.",
        )


def _prepare(run_dir: Path, pack_dir: Path, *, overwrite: bool, resume: bool) -> None:
    for folder, cure in (
        (run_dir, "Go on with it by --resume, or replace it by --overwrite."),
        (pack_dir, "Give the recipe a new version, or add --overwrite."),
    ):
        may_stay = overwrite or (resume and folder == run_dir)
        if folder.exists() and any(folder.iterdir()) and not may_stay:
            raise OutputExistsError(f"There is something in {folder.parent.name}/{folder.name} already.", cure=cure)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        if not resume:
            for name in (CHECKPOINT_NAME, LOG_NAME, BEST_NAME, CURVES_NAME, METRICS_NAME):
                (run_dir / name).unlink(missing_ok=True)
            if (run_dir / TENSORBOARD_NAME).exists():
                shutil.rmtree(run_dir / TENSORBOARD_NAME)
    except OSError as error:
        raise OutputNotWritableError(
            f"The folder {run_dir.name} cannot be made ({error.strerror}).", cure="Check permissions and free space."
        ) from error


def _evaluate(
    recipe: Recipe, weights: Weights, splits: dict[str, PatchSet]
) -> tuple[dict[str, Any], dict[str, float], tuple[NDArray[np.int8], NDArray[np.float32]]]:
    """Scores of exactly what ships: weights rounded to float16, computed in float32, never augmented.

    Returns:
        Metrics by split, with what must be said of the thresholds; thresholds chosen on validation; labels and probabilities
        to judge them on (test, if there is one).
    """
    from hepamap.training.batches import PlainBatches

    network = recipe.network
    model = build_network(network.backbone, network.head, network.patch)
    set_weights(model, {name: value.astype(np.float16) for name, value in weights.items()})
    model.compile(jit_compile=False)
    metrics: dict[str, Any] = {}
    judged: dict[str, tuple[NDArray[np.int8], NDArray[np.float32]]] = {}
    for split, name in METRICS_OF.items():
        patches = splits[split]
        if len(set(patches.labels.tolist())) == 2:
            batches = PlainBatches(patches, np.arange(len(patches)), recipe.training.batch_size)
            judged[name] = (patches.labels, patch_answers(model, batches))
            metrics[name] = {**patch_metrics(*judged[name]), "slides": len(set(patches.slides.tolist()))}
    labels, probabilities = judged["validation"]
    thresholds = choose_thresholds(labels == 1, probabilities)
    said = remarks(measured_points(thresholds, labels == 1, probabilities))
    return {**metrics, "operating_points_remarks": said}, thresholds, judged.get("test", judged["validation"])


def patch_answers(model: Any, batches: Sequence[Any]) -> NDArray[np.float32]:
    """Tumour probability of each patch (N,); a network that answers for every pixel says of a patch what it says on average.

    Args:
        model: a keras model; answers (n, 2) or (n, P, P, 2).
        batches: of patches and something more; averaged one by one, since the pixels of all patches may not fit in memory.
    """
    means = []
    with interrupts_deferred() as stop_if_asked:
        for number in range(len(batches)):
            answer = np.asarray(model.predict_on_batch(batches[number][0]))[..., 1]
            means.append(answer.reshape(len(answer), -1).mean(axis=1))
            stop_if_asked()
    return np.concatenate(means)


def _manifest(
    recipe: Recipe,
    datasets: Sequence[Dataset],
    history: dict[str, Any],
    metrics: dict[str, Any],
    points: Sequence[Any],
) -> ManifestBody:
    judged_on = "test" if "test" in metrics else "validation"
    kind: Literal["classification", "segmentation"] = "classification" if recipe.segmentation is None else "segmentation"
    modes: tuple[Mode, ...] = ("patch", "dense") if can_be_dense(recipe.network.head) else ("patch",)
    modes = ("segment",) if kind == "segmentation" else modes
    return ManifestBody(
        id=recipe.pack.id,
        version=recipe.pack.version,
        title=recipe.pack.title,
        network=NetworkSpec(kind=kind, backbone=recipe.network.backbone, head=recipe.network.head),
        input=InputSpec(mpp=recipe.network.mpp, patch=recipe.network.patch),
        strides=recipe.pack.strides,
        default_stride=recipe.pack.default_stride,
        modes=modes,
        default_mode=modes[0],
        operating_points=tuple(points),
        training={
            "software": f"hepamap {__version__}",
            "origin": recipe.pack.origin,
            "data": [_summary(dataset) for dataset in datasets],
            "history": history,
            "recipe": recipe.model_dump(mode="json", exclude={"pack"}),
        },
        evaluation={
            **metrics,
            "operating_points_chosen_on": "the data sets' validation patches, until `hepamap evaluate --write` chooses on slides",
            "operating_points_measured_on": f"the data sets' {judged_on} patches",
        },
        licence=recipe.pack.licence,
        intended_use=INTENDED_USE[recipe.pack.origin],
    )


def _summary(dataset: Dataset) -> dict[str, Any]:
    slides = dataset.manifest["slides"]
    return {
        "name": dataset.folder.name,
        "seed": dataset.manifest["seed"],
        "patches_per_class": dataset.manifest["patches_per_class"],
        "slides": {split: sum(slide["split"] == split for slide in slides) for split in dataset.manifest["patches_per_class"]},
    }
