"""How many patches each slide should give (pure arithmetic), so that any number of processes draw the same ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)


def fill(
    offering: Mapping[Key, Iterable[int]],
    wanted: Mapping[Key, int],
    ask: Callable[[dict[Key, dict[int, int]]], Mapping[Key, Mapping[int, int]]],
) -> None:
    """Ask slides for their shares, then those that have more for what others lack, until there is enough or nobody has more.

    It ends, whatever the slides give: a share grows only where all of it was given, so it stays at or below what is wanted.

    Args:
        offering: the slides that have some, by split and class.
        wanted: of all slides together, by split and class.
        ask: told what each slide shall give, answers what each gives: at most that.
    """
    quotas = {key: first_quotas(slides, wanted[key]) for key, slides in offering.items()}
    while True:
        found = ask(quotas)
        raised = {key: raised_quotas(quota, found[key], wanted[key]) for key, quota in quotas.items()}
        if raised == quotas:
            return
        quotas = raised


def first_quotas(slides: Iterable[int], wanted: int) -> dict[int, int]:
    """Equal shares of what is wanted, by slide; where they do not come out even, the first ones give one more."""
    slides = list(slides)
    quotas: dict[int, int] = {}
    for number, slide in enumerate(slides):
        quotas[slide] = math.ceil((wanted - sum(quotas.values())) / (len(slides) - number))
    return quotas


def raised_quotas(quotas: dict[int, int], found: Mapping[int, int], wanted: int) -> dict[int, int]:
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
