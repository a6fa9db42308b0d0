"""What the verdicts on one slide say of it together: where it lies, its pixel size, its case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hepamap.errors import SlideError
from hepamap.geometry import PixelSize, Region
from hepamap.pixel_size import PIXEL_SIZE_TOLERANCE
from hepamap.slide import Slide
from hepamap.verdicts.verdict import Verdict

_SAME_PIXEL_SIZE = 1e-3


@dataclass(frozen=True, slots=True)
class SlideFound:
    """A slide that is still there."""

    path: str
    """As the server sees it."""
    bounds_l0: Region
    """The part of level 0 that was scanned; level-0 px."""
    mpp: str
    """Its pixel size for the table of a cohort, µm/px; empty where the slide says it itself."""


def find_slide(verdicts: Sequence[Verdict], pixel_size: PixelSize) -> SlideFound | str:
    """Look for a slide at all paths that verdicts on it name, from the newest to the oldest: an upload may have gone.

    Args:
        verdicts: all on one slide, oldest first; at least one.
        pixel_size: that of level 0 in the verdict that counts.

    Returns:
        The slide, or the reason why it is left out; of several the one at the newest path.
    """
    reasons = []
    for path in dict.fromkeys(verdict.slide.path for verdict in reversed(verdicts)):
        try:
            # The verdict's pixel size stands in for a senseless one in the file, which would be refused.
            with Slide.open(Path(path), client_pixel_size=pixel_size) as slide:
                if slide.fingerprint == verdicts[-1].slide.fingerprint:
                    mpp = _mpp_for_table(slide, pixel_size)
                    return "pixels_not_square" if mpp is None else SlideFound(path, slide.bounds_l0, mpp)
            reasons.append("slide_replaced")
        except SlideError as error:
            reasons.append(error.code)
    return reasons[0]


def groups_of(verdicts: Sequence[Verdict], own_name: str) -> list[str]:
    """Every group that a slide was ever in, the one it is in now last: the case that was last named, if any was.

    Args:
        verdicts: all on it, oldest first; not every client names a case.
        own_name: its group as long as none is named.
    """
    first = [] if verdicts[0].slide.case else [own_name]
    return first + [verdict.slide.case for verdict in verdicts if verdict.slide.case]


def _mpp_for_table(slide: Slide, said: PixelSize) -> str | None:
    """A pixel size that a person or a viewer gave must go along, or the patches would come at another scale.

    None where the table, which has one number for both sides, cannot hold it.
    """
    own = slide.metadata_pixel_size
    is_own = own is not None and _same(own.x_um, said.x_um) and _same(own.y_um, said.y_um)
    if is_own:
        return ""
    short_um, long_um = sorted((said.x_um, said.y_um))
    return f"{said.mean_um:.6g}" if long_um <= short_um * (1 + PIXEL_SIZE_TOLERANCE) else None


def _same(one: float, other: float) -> bool:
    return abs(one - other) <= _SAME_PIXEL_SIZE * other
