"""How many patches each slide should give (pure arithmetic), so that any number of processes draw the same ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)


def fill(
    most: Mapping[Key, Mapping[int, int]],
    wanted: Mapping[Key, int],
    ask: Callable[[dict[Key, dict[int, int]]], Mapping[Key, Mapping[int, int]]],
) -> None:
    """Ask slides for their shares, then those that have more for what others lack, until there is enough or nobody has more.

    It ends, whatever the slides give: a share grows only where all of it was given, so it stays at or below what is wanted, and
    where it is below what the slide can hold, so it stays at or below that, too.

    Args:
        most: patches that each slide can hold at most, by split and class.
        wanted: of all slides together, by split and class.
        ask: told what each slide shall give, answers what each gives: at most that.
    """
    quotas = {key: first_quotas(of_slides, wanted[key]) for key, of_slides in most.items()}
    while True:
        found = ask(quotas)
        raised = {key: raised_quotas(quota, found[key], wanted[key], most[key]) for key, quota in quotas.items()}
        if raised == quotas:
            return
        quotas = raised


def first_quotas(most: Mapping[int, int], wanted: int) -> dict[int, int]:
    """Equal shares of what is wanted, by slide, but of none more than it can hold: the others share the rest.

    Where shares do not come out even, the first slides give one more. Where all slides together hold less, each gives all.
    """
    quotas = _equal(most, wanted)
    settled: dict[int, int] = {}
    # What some cannot hold makes the shares of others larger, perhaps larger than these can hold.
    while small := {slide: most[slide] for slide, quota in quotas.items() if quota > most[slide]}:
        settled |= small
        quotas = _equal([slide for slide in quotas if slide not in small], wanted - sum(settled.values()))
    return {slide: settled[slide] if slide in settled else quotas[slide] for slide in most}


def raised_quotas(quotas: dict[int, int], found: Mapping[int, int], wanted: int, most: Mapping[int, int]) -> dict[int, int]:
    """The next quotas, where some slides had too little: what is missing is shared by those that gave all they were asked for.

    Args:
        quotas: asked of each slide.
        found: what each gave.
        wanted: of all slides together.
        most: that each slide can hold.

    Returns:
        Quotas that are higher for some slides; the same where nothing is missing or nobody has more.
    """
    missing = wanted - sum(found.values())
    room = {slide: most[slide] - quota for slide, quota in quotas.items() if found[slide] >= quota}
    if missing <= 0 or not room:
        return quotas
    more = first_quotas(room, missing)
    return {slide: quota + more.get(slide, 0) for slide, quota in quotas.items()}


def _equal(slides: Collection[int], wanted: int) -> dict[int, int]:
    """Shares that add up to what is wanted."""
    share, over = divmod(wanted, len(slides) or 1)
    return {slide: share + (number < over) for number, slide in enumerate(slides)}
