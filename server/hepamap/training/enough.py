"""Whether data sets hold what a recipe asks for, told before a training begins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hepamap.training.dataset import PatchSet
from hepamap.training.errors import PatchesTooFewError
from hepamap.training.fields import FieldSet
from hepamap.training.patches import NON_TUMOUR, TUMOUR
from hepamap.training.recipe import Recipe


def require_enough(recipe: Recipe, splits: Mapping[str, PatchSet], fields: Mapping[str, FieldSet]) -> None:
    """Check the numbers of a recipe: a training on less would not be the one that it names.

    Raises:
        PatchesTooFewError: it asks for more patches or fields than there are.
    """
    for key, wanted, there, what in _numbers(recipe, splits, fields):
        if wanted is not None and wanted > there:
            raise PatchesTooFewError(
                f"The recipe asks for {key} = {wanted}, but the data sets have {there} {what}.",
                cure="Build a larger data set with `hepamap dataset build`, or write a lower number into the recipe.",
            )


def _numbers(
    recipe: Recipe, splits: Mapping[str, PatchSet], fields: Mapping[str, FieldSet]
) -> Iterator[tuple[str, int | None, int, str]]:
    """Key, number, how many there are, of what."""

    def count(split: str, label: int) -> int:
        return int((splits[split].labels == label).sum())

    if recipe.segmentation is not None:
        part = recipe.segmentation
        yield "segmentation.tumour_patches", part.tumour_patches, count("train", TUMOUR), "training patches of tumour"
        yield (
            "segmentation.non_tumour_patches",
            part.non_tumour_patches,
            count("train", NON_TUMOUR),
            "training patches of non-tumour",
        )
    # Half of them are drawn of each class.
    there = 2 * min(count("val", TUMOUR), count("val", NON_TUMOUR))
    yield "training.validation_patches", recipe.training.validation_patches, there, "validation patches, both classes alike"
    if recipe.fields is not None:
        yield "fields.validation", recipe.fields.validation, len(fields["val"]), "validation fields"
