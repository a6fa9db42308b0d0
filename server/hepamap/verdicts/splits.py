"""Which split the slides of an export are in: what was for test once never gets into training later."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

_SPLITS = ("train", "val", "test")
_VAL_FROM, _TEST_FROM = 0.7, 0.85


def splits_of(groups: Mapping[str, Collection[str]]) -> dict[str, str]:
    """The split of each slide, by the names of groups alone.

    Args:
        groups: of each slide, every group that it was ever in, at least one: its case may be named late, or corrected.

    Returns:
        By slide. Slides that have ever shared a group, also through others, are in one split: of those that the names of
        their groups stand for, the one that is farthest from training. So it only moves away from there.
    """
    together: dict[str, set[str]] = {}
    for names in groups.values():
        joined = set(names).union(*(together.get(name, ()) for name in names))
        together |= dict.fromkeys(joined, joined)
    return {slide: max(map(_split_of, together[next(iter(names))]), key=_SPLITS.index) for slide, names in groups.items()}


def _split_of(group: str) -> str:
    share = int(hashlib.sha256(group.encode()).hexdigest()[:8], 16) / 16**8
    return "train" if share < _VAL_FROM else "val" if share < _TEST_FROM else "test"
