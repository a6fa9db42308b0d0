"""A model on the test patches of data sets, straight through its network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepamap.detection import Detector
from hepamap.errors import OutputNotWritableError, ParameterError
from hepamap.model_pack import ModelPack
from hepamap.pipeline import Progress
from hepamap.predictor import Predictor
from hepamap.training.dataset import Dataset, PatchSet, combine, open_dataset
from hepamap.training.errors import DatasetInvalidError
from hepamap.training.evaluation.bootstrap import Bootstrap, Interval
from hepamap.training.evaluation.errors import SplitEmptyError
from hepamap.training.evaluation.scores import Counts, Scores
from hepamap.training.evaluation.summary import rounded

_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class PatchOutcome:
    """A model on patches."""

    pack: ModelPack
    datasets: tuple[str, ...]
    slides: int
    groups: int
    truth: NDArray[np.bool_]
    answer: NDArray[np.float32]
    auc: Interval | None
    """None where the patches have one class only."""
    warnings: tuple[Mapping[str, str], ...] = ()
    """Code and message of what went otherwise than the machine promised when the patches were asked for."""

    def scores(self) -> Scores:
        """At the model's default threshold; no pixels, so no IoU."""
        counts = Counts.of(self.truth, self.answer, self.pack.manifest.default_threshold)
        return {**counts.scores(self.auc.value if self.auc else None), "iou": None}

    def to_json(self) -> dict[str, Any]:
        """For the report."""
        return {
            "model": self.pack.name,
            "datasets": list(self.datasets),
            "slides": self.slides,
            "groups": self.groups,
            "patches": len(self.truth),
            "tumour_patches": int(self.truth.sum()),
            "auc": None if self.auc is None else self.auc.to_json(),
            "threshold": self.pack.manifest.default_threshold,
            "scores": rounded(self.scores()),
            "warnings": list(self.warnings),
        }


def open_fitting(folders: Sequence[Path], packs: Sequence[ModelPack], split: str) -> dict[str, list[Dataset]]:
    """The data sets that each model can look at, by its name.

    Networks that answer for every pixel have none: they see a patch's surroundings, which the patches of a data set lack.

    Raises:
        DatasetInvalidError: one is none, or fits none of the models.
        ParameterError: one fits such networks only.
        SplitEmptyError: what a model can look at has no patch in this split.
    """
    datasets = [open_dataset(folder) for folder in folders]
    for item in datasets:
        fitting = [pack for pack in packs if _fits(item, pack)]
        if not fitting:
            raise DatasetInvalidError(
                f"The data set {item.folder.name} has patches of {item.patch_m} px at {item.mpp:g} µm: no model takes them.",
                cure="Build a data set with the --mpp and --patch of a model (`hepamap models list`).",
            )
        if not any(_is_asked_for_patches(pack) for pack in fitting):
            raise ParameterError(
                f"The model {fitting[0].name} answers for pixels and sees their surroundings, which the patches of "
                f"{item.folder.name} lack.",
                cure="Evaluate it on whole slides (a cohort's table), without --dataset, or together with a model of patches.",
            )
    taken = {pack.name: [item for item in datasets if _is_asked_for_patches(pack) and _fits(item, pack)] for pack in packs}
    for pack in packs:
        if taken[pack.name]:
            _patches_of(pack, taken[pack.name], split)
    return taken


def judge_patches(
    pack: ModelPack,
    datasets: Sequence[Dataset],
    split: str,
    detector: Detector,
    folder: Path,
    bootstrap: Bootstrap,
    progress: Callable[[Progress], None],
) -> PatchOutcome:
    """Ask a model for every patch of a split.

    Args:
        pack: the model.
        datasets: with patches of its resolution and side.
        split: train, val or test.
        detector: the loaded models.
        folder: keeps the answers, so that they are computed once.
        bootstrap: how the interval is drawn.
        progress: told after each batch.
    """
    patches = _patches_of(pack, datasets, split)
    names = tuple(item.folder.name for item in datasets)
    path = folder / f"{pack.manifest.id}-{_key(pack, datasets, split, detector.precision)}.npy"
    answer = _kept(path, len(patches))
    if answer is None:
        answer, warnings = _ask(pack, patches, detector, progress)
        _keep(path, answer, warnings)
    truth = patches.labels == 1
    groups, group_of = np.unique(patches.groups, return_inverse=True)
    auc = bootstrap.of_auc(truth, answer, group_of)
    return PatchOutcome(pack, names, len(np.unique(patches.slides)), len(groups), truth, answer, auc, _kept_warnings(path))


def _patches_of(pack: ModelPack, datasets: Sequence[Dataset], split: str) -> PatchSet:
    patches = combine(datasets, pack.manifest.input.mpp, pack.manifest.input.patch)[split]
    if not len(patches):
        raise SplitEmptyError(
            f"The data sets {', '.join(item.folder.name for item in datasets)} have no patch in the split “{split}”.",
            cure="Add slides of this split to their table and build them again.",
        )
    return patches


def _is_asked_for_patches(pack: ModelPack) -> bool:
    return pack.manifest.network.kind != "segmentation"


def _fits(dataset: Dataset, pack: ModelPack) -> bool:
    spec = pack.manifest.input
    return dataset.patch_m == spec.patch and abs(dataset.mpp - spec.mpp) <= 1e-6


def _ask(
    pack: ModelPack, patches: PatchSet, detector: Detector, progress: Callable[[Progress], None]
) -> tuple[NDArray[np.float32], list[dict[str, str]]]:
    """The answers, and the warnings of the network that gave them."""

    def look(network: Predictor) -> NDArray[np.float32]:
        answers = []
        for first in range(0, len(patches), _AT_ONCE):
            numbers = np.arange(first, min(first + _AT_ONCE, len(patches)))
            answers.append(network.predict(patches.take(numbers)))
            progress(Progress(int(numbers[-1]) + 1, len(patches), f"{pack.name}, patches"))
        return np.concatenate(answers)

    answers, predictor = detector.run(pack, look)
    return answers, [{"code": code, "message": message} for code, message in predictor.warnings]


def _key(pack: ModelPack, datasets: Sequence[Dataset], split: str, precision: str) -> str:
    asked = [pack.manifest.weights.sha256, precision, split, [(item.manifest, item.rows) for item in datasets]]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def _kept(path: Path, count: int) -> NDArray[np.float32] | None:
    try:
        answer = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return answer if answer.shape == (count,) and answer.dtype == np.float32 else None


def _kept_warnings(path: Path) -> tuple[Mapping[str, str], ...]:
    """Those beside the answers; none where they are of a time that kept none."""
    try:
        return tuple(json.loads(_warnings_beside(path).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return ()


def _warnings_beside(path: Path) -> Path:
    return path.with_suffix(".warnings.json")


def _keep(path: Path, answer: NDArray[np.float32], warnings: Sequence[Mapping[str, str]]) -> None:
    """Whole or not at all; the warnings first, for answers that are there are not asked for again."""
    partial = path.with_name(f".{path.name}.partial.npy")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _warnings_beside(path).write_text(json.dumps(list(warnings)), encoding="utf-8")
        np.save(partial, answer, allow_pickle=False)
        partial.replace(path)
    except OSError as error:
        raise OutputNotWritableError(
            f"The answers for patches cannot be kept in {path.parent.name} ({error.strerror}).",
            cure="Check permissions and free space.",
        ) from error
