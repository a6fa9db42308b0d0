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
    missing = [
        name
        for name, empty in (
            ("tumour", all(areas.tumour_l0.is_empty for areas in drawn)),
            ("non-tumour", all(areas.non_tumour_l0.is_empty for areas in drawn)),
        )
        if empty
    ]
    if missing:
        raise OneClassError(
            f"Nothing is {' or '.join(missing)} on {slides}.",
            cure="Add slides on which both are annotated, or say in the table that unannotated tissue is non_tumour.",
        )
