"""How many patches each slide should give (pure arithmetic), so that any number of processes draw the same ones."""

from __future__ import annotations

import math
from collections.abc import Iterable


def first_quotas(slides: Iterable[int], wanted: int) -> dict[int, int]:
    """Equal shares of what is wanted, by slide; where they do not come out even, the first ones give one more."""
    slides = list(slides)
    quotas: dict[int, int] = {}
    for number, slide in enumerate(slides):
        quotas[slide] = math.ceil((wanted - sum(quotas.values())) / (len(slides) - number))
    return quotas


def raised_quotas(quotas: dict[int, int], found: dict[int, int], wanted: int) -> dict[int, int]:
    """The next quotas, where some slides had too little: what is missing is shared by those that gave all they were asked for.

    Args:
        quotas: asked of each slide.
        found: what each gave.
        wanted: of all slides together.

    Returns:
        Quotas that are higher for some slides; the same where nothing is missing or nobody has more.
    """
    missing = wanted - sum(found.values())
    full = [slide for slide, quota in quotas.items() if found[slide] >= quota]
    if missing <= 0 or not full:
        return quotas
    more = first_quotas(full, missing)
    return {slide: quota + more.get(slide, 0) for slide, quota in quotas.items()}
