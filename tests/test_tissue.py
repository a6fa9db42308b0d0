import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hepamap.tissue import FOCUS_MIN_EDGES, focus_score, is_background_pixel, tissue_patches


@pytest.mark.parametrize(
    ("rgb", "background"),
    [
        ((200, 200, 200), False),
        ((201, 200, 200), True),
        ((255, 255, 90), False),
        ((255, 255, 91), True),
        ((255, 255, 255), True),
        ((0, 0, 0), True),
        ((24, 24, 24), True),
        ((24, 7, 16), True),
        ((25, 0, 0), False),
        ((0, 25, 0), False),
        ((0, 0, 25), False),
    ],
)
def test_background_is_a_mean_above_200_or_black(rgb: tuple[int, int, int], background: bool) -> None:
    assert is_background_pixel(np.array([[rgb]], np.uint8))[0, 0] == background


def test_exactly_half_background_is_tissue() -> None:
    patch = np.full((64, 64, 3), 90, np.uint8)
    patch[:16], patch[16:32] = 255, 0
    assert is_background_pixel(patch).mean() == 0.5
    assert tissue_patches(patch, 64, 16).tolist() == [[True]]
    patch[32, 0] = 255
    assert tissue_patches(patch, 64, 16).tolist() == [[False]]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from((8, 16, 48, 64)), st.integers(0, 3), st.integers(0, 3), st.integers(0, 2**31))
def test_overlapping_patches_equal_one_by_one(stride: int, rows: int, columns: int, seed: int) -> None:
    height, width = 64 + rows * stride, 64 + columns * stride
    white = np.random.default_rng(seed).random((height // 8, width // 8)) < 0.5
    field = np.where(np.kron(white, np.ones((8, 8), bool))[..., None], 255, 90).astype(np.uint8).repeat(3, axis=-1)
    got = tissue_patches(field, 64, stride)
    assert got.shape == (rows + 1, columns + 1)
    for row in range(rows + 1):
        for column in range(columns + 1):
            patch = field[row * stride : row * stride + 64, column * stride : column * stride + 64]
            assert got[row, column] == (is_background_pixel(patch).mean() <= 0.5)


def test_focus_counts_edges() -> None:
    flat = np.full((64, 64, 3), 120, np.uint8)
    assert focus_score(flat) == 0
    dotted = flat.copy()
    dotted[8::16, 8::16] = 20  # 16 dark dots; the Laplacian answers on the dot and its four neighbours
    assert focus_score(dotted) == 16 * 5
    assert focus_score(dotted) >= FOCUS_MIN_EDGES
    blurred = np.rint(flat + np.random.default_rng(0).normal(0, 2, flat.shape)).astype(np.uint8)
    assert focus_score(blurred) < FOCUS_MIN_EDGES
