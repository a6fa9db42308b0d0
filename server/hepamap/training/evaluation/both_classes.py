"""What can be known of the classes before any map is computed."""

from __future__ import annotations

from collections.abc import Collection

from hepamap.training.areas import SlideAreas
from hepamap.training.evaluation.errors import OneClassError


def require_both_classes(drawn: Collection[SlideAreas], slides: str) -> None:
    """Thresholds and AUC take tumour and non-tumour, and maps take hours.

    Args:
        drawn: of each slide, what is drawn on it.
        slides: which slides these are, for the message.

    Raises:
        OneClassError: on none of them is anything tumour, or anything non-tumour.
    """
    if error := missing_class(drawn, slides):
        raise error


def missing_class(drawn: Collection[SlideAreas], slides: str) -> OneClassError | None:
    """What to say where one class is on none of the slides; None where both are."""
    missing = [
        name
        for name, empty in (
            ("tumour", all(areas.tumour_l0.is_empty for areas in drawn)),
            ("non-tumour", all(areas.non_tumour_l0.is_empty for areas in drawn)),
        )
        if empty
    ]
    if not missing:
        return None
    what = f"Nothing is {' or '.join(missing)} on {slides}."
    if both := sum(areas.conflict_mm2 > 0 for areas in drawn):
        return OneClassError(
            f"{what} On {both} of them tumour and non-tumour are drawn over each other, which counts as neither.",
            cure="Cut the one out of the other's outline.",
        )
    if unknown := sorted({name for areas in drawn for name in areas.ignored_classes}):
        return OneClassError(
            f"{what} There are annotations of classes that are not known: {', '.join(f'“{name}”' for name in unknown)}.",
            cure="Say what they mean with --tumour-class, --non-tumour-class and --exclude-class.",
        )
    return OneClassError(
        what, cure="Add slides on which both are annotated, or say in the table that unannotated tissue is non_tumour."
    )
