"""The painted world: a function of place and seed, and true to its outlines."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from hepamap.phantom import Canvas, Content, PhantomSpec, truth_of
from hepamap.phantom.frame import BLOCK_PX, MARGIN_PX, BlockFrame
from hepamap.phantom.painter import Painter

PLAIN = PhantomSpec("resection", 2400, 2000, 0.5, seed=5, artefacts=False)


@pytest.fixture(scope="module")
def canvas() -> Canvas:
    return Canvas(PLAIN)


def test_same_seed_same_bytes_other_seed_other_tissue(canvas: Canvas) -> None:
    again, other = Canvas(PLAIN), Canvas(PhantomSpec("resection", 2400, 2000, 0.5, seed=4, artefacts=False))
    place = (2000, 1500, 300, 200)
    np.testing.assert_array_equal(again.window(*place), canvas.window(*place))
    assert np.abs(_window(other, *place) - _window(canvas, *place)).mean() > 15


def test_a_window_is_part_of_a_larger_window(canvas: Canvas) -> None:
    whole, part = _window(canvas, 1900, 1000, 500, 400), _window(canvas, 2100, 1150, 200, 100)
    np.testing.assert_array_equal(whole[150:250, 200:400], part)


def test_blocks_meet_without_a_seam() -> None:
    painter = Painter(PLAIN)
    left, right = (np.asarray(painter.block(column, 1), float) for column in (1, 2))
    above, below = (np.asarray(painter.block(2, row), float) for row in (1, 2))
    for first, second in ((left, right), (above.transpose(1, 0, 2), below.transpose(1, 0, 2))):
        usual = np.abs(np.diff(np.concatenate([first, second], axis=1), axis=1)).mean(axis=(0, 2))
        assert usual[BLOCK_PX - 1] < 1.3 * np.median(usual)


@pytest.mark.parametrize(("mpp_x", "mpp_y"), [(0.23, 0.23), (0.2527, 0.2527), (0.5, 0.46), (0.92, 0.92)])
def test_the_same_tissue_at_every_pixel_size(canvas: Canvas, mpp_x: float, mpp_y: float) -> None:
    spec = PhantomSpec("resection", 2400, 2000, mpp_x, mpp_y, seed=5, artefacts=False)
    side_um, x_um, y_um = 230.0, 1150.0, 690.0
    pictures = []
    for each, size in ((canvas, (0.5, 0.5)), (Canvas(spec), (mpp_x, mpp_y))):
        x_l0, y_l0 = round(x_um / size[0]), round(y_um / size[1])
        seen = _window(each, x_l0, y_l0, round(side_um / size[0]), round(side_um / size[1]))
        pictures.append(cv2.resize(cv2.GaussianBlur(seen, (0, 0), 2 / size[0], sigmaY=2 / size[1]), (58, 58)))
    first, second = (picture.mean(axis=2) for picture in pictures)
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.98
    # One step is 4 µm: were the tissue shifted by as much, it would agree far less.
    assert np.corrcoef(first[:, 1:].ravel(), second[:, :-1].ravel())[0, 1] < 0.95


def test_the_outline_separates_the_tissues_to_the_pixel() -> None:
    frame = next(
        frame
        for frame in (BlockFrame(column, row) for row in range(1, 3) for column in range(1, 4))
        if 0.2 < frame.fill(truth_of(PLAIN).tumour).mean() / 255 < 0.8
    )
    mixed, liver, tumour = (_block(content, frame) for content in ("mixed", "liver", "tumour"))
    inner = slice(MARGIN_PX, MARGIN_PX + BLOCK_PX)
    depth_px = frame.signed_distance_um(truth_of(PLAIN).tumour)[inner, inner] / 0.5
    deep, rim = depth_px > 40, (depth_px > 4) & (depth_px < 12)
    # Deep inside, the mixed slide is the tumour slide, byte by byte; within 2 to 6 µm of the outline, but for whole cells.
    np.testing.assert_array_equal(mixed[deep], tumour[deep])
    assert _difference(mixed, tumour, rim) < 0.4 * _difference(mixed, liver, rim)
    outer = (depth_px < -4) & (depth_px > -12)
    assert _difference(mixed, liver, outer) < 0.6 * _difference(mixed, tumour, outer)


def test_glass_is_bright_and_tissue_is_not(canvas: Canvas) -> None:
    assert canvas.window(0, 0, 60, 60) is None
    assert canvas.glass.mean() > 220
    for seed in range(2):
        spec = PhantomSpec("resection", 1000, 1000, 2.0, seed=seed, artefacts=("pale",))
        seen = _window(Canvas(spec), 100, 100, 300, 300)
        white = (seen.mean(axis=2) > 200).astype(float)
        patches = cv2.resize(white, (6, 6), interpolation=cv2.INTER_AREA)
        assert (patches > 0.5).mean() < 0.05


def _window(canvas: Canvas, x_l0: int, y_l0: int, width: int, height: int) -> NDArray[np.float32]:
    pixels = canvas.window(x_l0, y_l0, width, height)
    assert pixels is not None
    assert pixels.shape == (height, width, 3)
    return pixels.astype(np.float32)


def _block(content: Content, frame: BlockFrame) -> NDArray[np.float32]:
    spec = PhantomSpec("resection", 2400, 2000, 0.5, seed=5, content=content, artefacts=False)
    return np.asarray(Painter(spec).block(frame.column, frame.row), np.float32)


def _difference(first: NDArray[np.float32], second: NDArray[np.float32], where: NDArray[np.bool_]) -> float:
    return float(np.abs(first[where] - second[where]).mean())
