from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib import colormaps
from numpy.typing import NDArray

from hepamap.training.studies import figures
from hepamap.training.studies.report import write_factor_report, write_size_report, write_stride_report
from hepamap.training.studies.table import Row

ORDER = {"backbone": ["A", "B", "C"], "head": ["GAP", "FC512"], "batch_size": ["32", "64"], "optimiser": ["sgd", "adam"]}


def factor_row(backbone: str, head: str, batch_size: str, optimiser: str, auc: float | None, repeat: int = 1) -> Row:
    factors = {"backbone": backbone, "head": head, "batch_size": batch_size, "optimiser": optimiser, "repeat": str(repeat)}
    done = {"status": "failed", "auc": ""} if auc is None else {"status": "ok", "auc": str(auc)}
    return {**factors, **done, "seconds": "1.0", "message": "" if auc else "The loss is no longer a number"}


def stride_row(model: str, mode: str, stride: int, slide: str, **scores: str) -> Row:
    mpp, patch = (1.84, 64) if model == "5x" else (0.92, 128)
    numbers = {"auc": "0.9", "sensitivity": "0.8", "specificity": "0.7", "iou": "0.6", "seconds": "3.0", **scores}
    place = {"stride_um": f"{stride * mpp:.2f}", "overlap": f"{1 - stride / patch:.3f}", "device": "cpu", "message": ""}
    key = {"model": model, "mode": mode, "stride": str(stride), "slide": slide, "inputs": "x"}
    return {**key, "status": "ok", **numbers, **place}


def picture(path: Path) -> NDArray[np.uint8]:
    """RGB."""
    pixels = cv2.imread(str(path))
    assert pixels is not None
    return np.asarray(pixels[:, :, ::-1], np.uint8)


def pixels_like(image: NDArray[np.uint8], rgb: tuple[float, ...], reach: int = 6) -> int:
    """Pixels of about a colour (0 to 1)."""
    wanted = np.array(rgb[:3]) * 255
    return int((np.abs(image.astype(float) - wanted).max(axis=2) < reach).sum())


def thin(rgb: tuple[float, ...]) -> tuple[float, ...]:
    """The colour of a line that is not the best, on white."""
    return tuple(0.9 * value + 0.1 for value in rgb)


def test_each_combination_has_its_line_in_the_colour_of_its_auc(tmp_path: Path) -> None:
    rows = [factor_row("A", "GAP", "32", "sgd", 0.6), factor_row("C", "FC512", "64", "adam", 0.9)]
    write_factor_report(tmp_path, rows, ORDER, tuple(ORDER))
    image = picture(tmp_path / "factors.png")
    assert image.shape == (832, 1495, 3)
    scale = colormaps["viridis"]
    # The range is 0.6 to 0.9; the best line is four times as thick.
    left = image[:, : image.shape[1] * 7 // 8]
    low, high = pixels_like(left, thin(scale(0.0))), pixels_like(left, scale(0.92))
    assert low > 500
    assert 2 * low < high < 8 * low
    assert pixels_like(left, thin(scale(0.46))) < 100
    # Without the best one, the other is bold, at the middle of a scale of its own.
    write_factor_report(tmp_path, rows[:1], ORDER, tuple(ORDER))
    alone = picture(tmp_path / "factors.png")[:, :1300]
    assert pixels_like(alone, scale(0.46)) > 2000
    assert pixels_like(alone, scale(0.92)) < 100


def test_runs_of_values_that_the_study_no_longer_has_are_still_shown(tmp_path: Path) -> None:
    rows = [factor_row("A", "GAP", "32", "sgd", 0.6), factor_row("Z", "GAP", "512", "sgd", 0.8)]
    write_factor_report(tmp_path, rows, ORDER, tuple(ORDER))
    text = (tmp_path / "factors.md").read_text(encoding="utf-8")
    assert text.index("| backbone | A |") < text.index("| backbone | Z | 1 | 0.800 |")
    assert (tmp_path / "factors.png").exists()


def test_lines_are_fanned_out_so_that_none_hides_another() -> None:
    heights = figures._fanned(["a", "b", "a", "a"], ["a", "b"])
    # The first value fills the upper half, 0.66 of it; the best line is its highest.
    np.testing.assert_allclose(heights, [0.75 - 0.165, 0.25, 0.75, 0.75 + 0.165])
    x, y = figures._curve(np.array([0.0, 1.0, 0.5]))
    assert (x[0], x[-1], y[0], y[-1], y.max()) == (0, 2, 0, 0.5, 1)
    assert np.interp(0.5, x, y) == pytest.approx(0.5, abs=1e-3)


def test_a_study_without_success_has_tables_but_no_picture(tmp_path: Path) -> None:
    write_factor_report(tmp_path, [factor_row("A", "GAP", "32", "sgd", None)], ORDER, tuple(ORDER))
    write_size_report(tmp_path, [], "A + GAP")
    write_stride_report(tmp_path, [])
    assert not list(tmp_path.glob("*.png"))
    assert "| A | GAP | 32 | sgd | 0 (1 failed) | – | – | – | – | – |" in (tmp_path / "factors.md").read_text(encoding="utf-8")


def test_sizes_have_a_line_a_band_and_a_dot_for_each_training(tmp_path: Path) -> None:
    rows = [
        {"patches": str(size), "repeat": str(repeat), "status": "ok", "auc": str(auc), "seconds": "1", "message": ""}
        for size, of_size in ((1000, (0.8, 0.9)), (10, (0.5, 0.7)))
        for repeat, auc in enumerate(of_size)
    ]
    write_size_report(tmp_path, rows, "A + GAP")
    image = picture(tmp_path / "data-size.png")
    assert image.shape == (650, 1040, 3)
    band = 0.18 * np.array([0x2A, 0x78, 0x8E]) / 255 + 0.82
    assert pixels_like(image, tuple(band)) > 20_000
    assert pixels_like(image, (0x2A / 255, 0x78 / 255, 0x8E / 255)) > 800
    lines = (tmp_path / "data-size.csv").read_text(encoding="utf-8").splitlines()
    assert lines[1:] == [
        "10,2,0,0.6000,0.1414,0.5000,0.7000,1.0000",
        "1000,2,0,0.8500,0.0707,0.8000,0.9000,1.0000",
    ]


def test_strides_are_means_over_slides_and_the_median_of_the_time(tmp_path: Path) -> None:
    rows = [
        stride_row("5x", "patch", 64, "a", iou="0.4", seconds="1.0"),
        stride_row("5x", "patch", 64, "b", iou="0.6", seconds="9.0", auc=""),
        stride_row("5x", "patch", 64, "c", iou="0.8", seconds="2.0"),
        stride_row("5x", "patch", 16, "a"),
        stride_row("10x", "dense", 32, "a"),
    ]
    write_stride_report(tmp_path, rows)
    text = (tmp_path / "stride.md").read_text(encoding="utf-8")
    assert (
        "| 5x | patch | 64 (no overlap) | 117.76 | 3 | 0.900 ± 0.000 | 0.800 ± 0.000 | 0.700 ± 0.000 | 0.600 ± 0.200 | 2.0 |"
        in text
    )
    assert text.index("| 10x | dense | 32 | 29.44 | 1 |") < text.index("| 5x | patch | 16 | 29.44 | 1 |") < text.index("64 (no")
    image = picture(tmp_path / "stride.png")
    assert image.shape == (910, 1625, 3)
    for model in range(2):
        assert pixels_like(image, colormaps["viridis"]((model + 0.5) / 2 * 0.85)) > 500
