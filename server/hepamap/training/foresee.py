"""What a build can know of its data set before a pixel is read, so that no hours go into one that cannot be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from hepamap.training.build_slide import SlideJob
from hepamap.training.build_spec import CLASS_NAMES, DatasetSpec
from hepamap.training.cohort import CohortSlide
from hepamap.training.errors import DatasetEmptyError, PatchesTooFewError
from hepamap.training.patches import TUMOUR

_NAMES_SHOWN = 5
_WORDS = {label: name.replace("_", "-") for label, name in CLASS_NAMES.items()}
_CURES = {
    True: "Name the class that means it with --tumour-class, or leave the split out (--{split} 0).",
    False: "Name the class that means it with --non-tumour-class; where only the tumour was drawn, as on biopsies, write "
    "non_tumour under “unannotated” in the table.",
}


def require_slides(spec: DatasetSpec, slides: Iterable[CohortSlide], table: str) -> None:
    """Check that the table has slides of every split that is asked for.

    Raises:
        DatasetEmptyError: it has none.
    """
    present = {slide.split for slide in slides}
    for split in spec.per_class:
        if split not in present:
            raise DatasetEmptyError(
                f"Patches of “{split}” are asked for, but {table} has no slide of that split.",
                cure=f"Write {split} under “split” for some of its tumours, or leave it out (--{split} 0).",
            )


def offering(spec: DatasetSpec, jobs: Sequence[SlideJob]) -> dict[tuple[str, int], dict[int, int]]:
    """Of the slides whose annotations can hold a patch: how many at most, by number of slide, by split and class.

    Raises:
        DatasetEmptyError: a split has none of a class.
    """
    most: dict[tuple[str, int], dict[int, int]] = {}
    for split in spec.per_class:
        of_split = [job for job in jobs if job.row.split == split]
        for label in CLASS_NAMES:
            most[split, label] = {job.number: job.most[label] for job in of_split if job.most[label]}
            if not most[split, label]:
                raise _empty(split, label, of_split)
    return most


def within_reach(spec: DatasetSpec, jobs: Sequence[SlideJob], *, fewer: bool) -> dict[str, int]:
    """Patches of each class to draw, by split: as asked for, or fewer where the annotations hold fewer and that will do.

    Raises:
        PatchesTooFewError: they hold fewer, and nobody said that it will do.
    """
    most = {
        split: {label: sum(job.most[label] for job in jobs if job.row.split == split) for label in CLASS_NAMES}
        for split in spec.per_class
    }
    reach = {split: min(asked, *most[split].values()) for split, asked in spec.per_class.items()}
    if reach == spec.per_class or fewer:
        return reach
    short = [split for split, asked in spec.per_class.items() if reach[split] < asked]
    scarce = {split: min(CLASS_NAMES, key=lambda label: most[split][label]) for split in short}
    said = [
        f"{spec.per_class[split]} of each class in {split}, where {_WORDS[scarce[split]]} has {reach[split]} at most"
        for split in short
    ]
    fields = ", no more --fields than --train" if spec.fields and "train" in short else ""
    raise PatchesTooFewError(
        "More patches are asked for than can lie on what is annotated without showing nearly the same (at least half a patch "
        f"apart): {'; '.join(said)}. That is a bound of their number: fewer will be found.",
        cure=f"Annotate more, ask for clearly fewer than the bound{fields}, or add --fewer to take what there is.",
    )


def _empty(split: str, label: int, jobs: Sequence[SlideJob]) -> DatasetEmptyError:
    drawn = sum(job.has(label) for job in jobs)
    if drawn:
        what = f"{drawn} of its slides have {_WORDS[label]}, but on none of them enough for one patch"
        return DatasetEmptyError(
            f"The split “{split}” can have no patch of {_WORDS[label]}: {what}.",
            cure="Annotate more of it, or look for patches that are smaller.",
        )
    both_mm2 = sum(job.notes["conflict_mm2"] for job in jobs)
    if both_mm2:
        return DatasetEmptyError(
            f"The split “{split}” has no {_WORDS[label]} of its own: {both_mm2:.3g} mm² are drawn as tumour and as "
            "non-tumour, which counts as neither.",
            cure="Cut the tumour out of the non-tumour's outline.",
        )
    found = Counter(name for job in jobs for name in job.class_names)
    meaning = {name: said for job in jobs for name, said in job.class_names.items()}
    shown = [f"“{name}” ({meaning[name]})" for name, _ in found.most_common(_NAMES_SHOWN)]
    shown += ["…"] if len(found) > _NAMES_SHOWN else []
    return DatasetEmptyError(
        f"The split “{split}” has no {_WORDS[label]}: its annotations are of {', '.join(shown) or 'nothing that is an area'}.",
        cure=_CURES[label == TUMOUR].format(split=split),
    )
