"""The data-size study (the paper's figure 4): one network on more and more training patches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from hepamap.errors import ParameterError
from hepamap.training.room import require_room
from hepamap.training.studies.loop import Run, StudyProgress, do_runs, drawn, study_data, work_of
from hepamap.training.studies.plan import Configuration, DataSizeStudy, SizesSection, read_study, recipe_of
from hepamap.training.studies.report import write_size_report


def study_data_size(
    study_path: Path,
    dataset_dirs: Sequence[Path],
    out: Path,
    *,
    models_dir: Path,
    sizes: Sequence[int] | None = None,
    repeats: int | None = None,
    retry_failed: bool = False,
    tell: Callable[[StudyProgress], None] = lambda _: None,
) -> None:
    """Do the runs that are missing, then write tables and the picture of all that are there.

    Each repeat draws its own patches; within a repeat, a larger number holds the patches of a smaller one.

    Args:
        study_path: a TOML file.
        dataset_dirs: data sets of the study's resolution and patch side.
        out: folder of the study; a study that was stopped there goes on.
        models_dir: where packs are, if the network begins with one.
        sizes: which of the study's numbers of patches; None: all.
        repeats: how often each; None: as the study says.
        retry_failed: do failed runs again.
        tell: told after every step.

    Raises:
        RecipeInvalidError, NetworkInvalidError, ParameterError: the study or the selection is at fault.
        DatasetInvalidError, PatchesTooFewError: the data sets do not serve.
        StudyBusyError, ResumeImpossibleError, OutputError: the folder does not.
    """
    study = read_study(study_path, DataSizeStudy)
    section = study.sizes
    chosen = _chosen(section.patches, sizes)
    asked = {"train": max(chosen), "val": study.data.validation, "test": study.data.test}
    datasets, splits = study_data(study, dataset_dirs, asked)
    seed = study.training.seed
    judged = {split: drawn(splits[split], asked[split], seed) for split in ("val", "test")}
    require_room(out, section.head, study.network.patch)
    configuration = Configuration(section.backbone, section.head, section.batch_size, section.optimiser)
    runs = [
        Run(
            (str(size), str(repeat + 1)),
            recipe_of(study, configuration, repeat),
            {**judged, "train": drawn(splits["train"], size, seed + repeat)},
        )
        for repeat in range(repeats or section.repeats)
        for size in chosen
    ]
    do_runs(
        out,
        ("patches", "repeat"),
        runs,
        {**work_of(study, datasets), **_network(section)},
        models_dir,
        report=lambda rows: write_size_report(out, rows, f"{section.backbone} + {section.head}"),
        retry_failed=retry_failed,
        tell=tell,
    )


def _chosen(offered: Sequence[int], wanted: Sequence[int] | None) -> list[int]:
    for size in wanted or ():
        if size not in offered:
            raise ParameterError(f"The study has no size of {size} patches.", cure=f"Use some of {', '.join(map(str, offered))}.")
    return [size for size in offered if not wanted or size in wanted]


def _network(section: SizesSection) -> dict[str, str | int]:
    return {
        "backbone": section.backbone,
        "head": section.head,
        "batch size": section.batch_size,
        "optimiser": section.optimiser,
    }
