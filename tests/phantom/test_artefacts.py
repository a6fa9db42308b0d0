"""Artefacts do what they are named after, and nothing else."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from hepamap.phantom import ARTEFACTS, Artefact, Canvas, PhantomSpec


@cache
def _slide(artefacts: tuple[Artefact, ...] | bool) -> NDArray[np.uint8]:
    """A whole small slide at 4 µm/px."""
    canvas = Canvas(PhantomSpec("resection", 1000, 1000, 2.5, seed=9, artefacts=artefacts))
    pixels = canvas.window(0, 0, 400, 400)
    assert pixels is not None
    return pixels


@pytest.fixture(scope="module")
def plain() -> NDArray[np.uint8]:
    return _slide(False)


@pytest.mark.parametrize("name", ARTEFACTS)
def test_an_artefact_shows_and_leaves_the_rest_alone(plain: NDArray[np.uint8], name: Artefact) -> None:
    changed = (np.abs(_slide((name,)).astype(int) - plain) > 6).any(axis=2).mean()
    assert 0.001 < changed < 0.6


def test_black_borders_are_black(plain: NDArray[np.uint8]) -> None:
    seen = _slide(("black_border",))
    edges = [seen[:2], seen[-2:], seen[:, :2], seen[:, -2:]]
    assert min(edge.max() for edge in edges) < 20
    assert plain[:2].min() > 220


def test_blur_takes_edges_away(plain: NDArray[np.uint8]) -> None:
    seen = _slide(("blur",))
    here = (np.abs(seen.astype(int) - plain) > 6).any(axis=2)
    before, after = (np.abs(cv2.Laplacian(picture.mean(axis=2), cv2.CV_64F))[here].mean() for picture in (plain, seen))
    assert after < 0.8 * before


def test_folds_are_darker_and_pale_tissue_is_lighter(plain: NDArray[np.uint8]) -> None:
    signs: dict[Artefact, int] = {"fold": -1, "pale": 1}
    for name, sign in signs.items():
        change = _slide((name,)).astype(int).sum(axis=2) - plain.astype(int).sum(axis=2)
        assert sign * change[np.abs(change) > 40].mean() > 40


def test_no_artefacts_means_none(plain: NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(_slide(()), plain)
