from __future__ import annotations

import random

import pytest

from hepamap.verdicts.splits import splits_of

SPLITS = ("train", "val", "test")


def test_most_slides_are_for_training() -> None:
    splits = list(splits_of({str(number): [f"group {number}"] for number in range(4000)}).values())
    shares = [splits.count(split) / len(splits) for split in SPLITS]
    assert shares == pytest.approx([0.7, 0.15, 0.15], abs=0.03)


def test_whatever_is_named_later_slides_only_move_away_from_training() -> None:
    """30 slides, of which one after the other is said to be of another one of 12 cases."""
    for seed in range(20):
        rng = random.Random(seed)
        groups = {slide: [f"own {seed} {slide}"] for slide in map(str, range(30))}
        before = splits_of(groups)
        for _ in range(40):
            groups[rng.choice(list(groups))].append(f"case {rng.randrange(12)}")
            after = splits_of(groups)
            assert all(SPLITS.index(after[slide]) >= SPLITS.index(before[slide]) for slide in groups)
            of_case: dict[str, str] = {}
            assert all(of_case.setdefault(names[-1], after[slide]) == after[slide] for slide, names in groups.items())
            before = after


def test_slides_that_share_a_group_through_others_are_together() -> None:
    chain = {str(number): [f"group {number}", f"group {number + 1}"] for number in range(20)}
    assert len(set(splits_of(chain).values())) == 1
    assert splits_of(chain) == splits_of(dict(reversed(chain.items())))
