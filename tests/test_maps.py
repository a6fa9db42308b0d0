"""Dense maps against a slow reference: one pass over the whole slide, and each cell looked up by its place."""

from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from hepamap.errors import CancelledError, StrideInvalidError
from hepamap.geometry import Grid, Lattice, PixelSize, Region
from hepamap.maps import Piece, Run, fill_dense, possible_tissue
from hepamap.networks.dense import field_network
from hepamap.pipeline import AnalysisParameters, Progress, analyse
from hepamap.predictor import Predictor
from hepamap.slide import Slide
from hepamap.tissue import tissue_patches
from tests.conftest import WriteSlide, readers_at_close
from tests.networks.test_dense import random_network

pytestmark = pytest.mark.usefixtures("thin_networks")

PATCH_M = 64
MPP = 1.84
HALO_M = 96


class SmallLanes(Predictor):
    """Lanes and strips small enough that a small slide needs many."""

    lane_positions = (5, 11)


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return random_network(patch_m=PATCH_M)


@pytest.fixture
def predictor(network: keras.Model) -> Predictor:
    return SmallLanes(network, PATCH_M)


def pixels(height: int, width: int) -> NDArray[np.uint8]:
    """Tissue of varying contrast, with a gap of glass across it, and a black one."""
    rng = np.random.default_rng(6)
    contrast = rng.random((height // 40 + 1, width // 40 + 1, 1)).repeat(40, axis=0).repeat(40, axis=1)[:height, :width]
    image = (np.array((170, 90, 150)) + contrast * rng.integers(-80, 80, (height, width, 3))).astype(np.uint8)
    image[:, width // 3 : width // 3 + 100] = 245
    image[:, 3 * width // 4 : 3 * width // 4 + 70] = 12
    return image


def reference(network: keras.Model, image: NDArray[np.uint8], lattice: Lattice) -> NDArray[np.float32]:
    """The whole slide with much glass around it in one pass, and thrice more, shifted, for cells between its units."""
    stride_m, patch_m = lattice.grid.stride_m, lattice.grid.patch_m
    side = 16 * (max(image.shape) // 16 + 20)
    values = np.full((lattice.rows, lattice.columns), np.nan, np.float32)
    shifts = (0, 8) if stride_m % 16 else (0,)
    for shift_y in shifts:
        for shift_x in shifts:
            canvas = np.full((1, side, side, 3), 255, np.uint8)
            top, left = HALO_M + PATCH_M - shift_y, HALO_M + PATCH_M - shift_x
            canvas[0, top : top + image.shape[0], left : left + image.shape[1]] = image
            (answers,) = field_network(network, side).predict_on_batch(canvas / np.float32(255))
            for row in range(lattice.rows):
                for column in range(lattice.columns):
                    y, x = (lattice.row0 + row) * stride_m + top, (lattice.column0 + column) * stride_m + left
                    patch = canvas[0, y : y + patch_m, x : x + patch_m]
                    if y % 16 == 0 and x % 16 == 0 and tissue_patches(patch, patch_m, 1)[0, 0]:
                        values[row, column] = answers[y // 16, x // 16, 1]
    return values


@pytest.mark.parametrize("stride_m", [8, 16, 32, 48, 64])
def test_a_dense_map_is_one_pass_over_the_whole_slide(
    write_slide: WriteSlide, network: keras.Model, predictor: Predictor, stride_m: int
) -> None:
    image = pixels(420, 500)
    with Slide.open(write_slide(image, MPP)) as slide:
        analysis = analyse(slide, predictor, AnalysisParameters(MPP, PATCH_M, stride_m, 0.5, 0, 0, mode="dense"), {})
    expected = reference(network, image, analysis.map.lattice)
    assert np.array_equal(np.isnan(analysis.map.values), np.isnan(expected))
    assert analysis.map.values == pytest.approx(expected, abs=2e-5, nan_ok=True)
    assert np.nanstd(expected) > 0.05  # a value in the wrong cell would show


def test_the_map_does_not_depend_on_how_the_slide_is_cut(write_slide: WriteSlide, network: keras.Model) -> None:
    path = write_slide(pixels(700, 900), MPP)
    maps = []
    widths: list[tuple[int, ...]] = [(5,), (11, 29), (61,)]
    for positions in widths:
        predictor = Predictor(network, PATCH_M)
        predictor.lane_positions = positions
        with Slide.open(path) as slide:
            maps.append(analyse(slide, predictor, AnalysisParameters(MPP, PATCH_M, 16, 0.5, 0, 0, mode="dense"), {}).map.values)
    for other in maps[1:]:
        assert other == pytest.approx(maps[0], abs=1e-5, nan_ok=True)


def test_what_is_read_at_once_is_no_more_for_wide_lanes(
    write_slide: WriteSlide, network: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lanes of 308 and 1204 px, a slide of 900: 100 and 25 rows at once, and the same values."""
    path = write_slide(pixels(700, 900), MPP)
    read: list[tuple[int, int]] = []
    plain = Slide.read_region

    def noted(self: Slide, region_l0: Region, mpp: float) -> NDArray[np.uint8]:
        answer = plain(self, region_l0, mpp)
        read.append(answer.shape[:2])
        return answer

    chosen = AnalysisParameters(MPP, PATCH_M, 16, 0.5, 0, 0, mode="dense")
    maps = []
    for positions, at_once in ((5, 10**9), (5, 30_800), (61, 30_800)):
        predictor = Predictor(network, PATCH_M)
        predictor.lane_positions = (positions,)
        monkeypatch.setattr("hepamap.maps.dense._CHUNK_PIXELS", at_once)
        monkeypatch.setattr("hepamap.maps.dense._FIRST_ROWS_M", 16)
        monkeypatch.setattr(Slide, "read_region", noted)
        read.clear()
        with Slide.open(path) as slide:
            maps.append(analyse(slide, predictor, chosen, {}).map.values)
        width_m = 16 * (positions - 1) + PATCH_M + 180
        of_lanes = [rows for rows, columns in read if columns == width_m]
        assert max(of_lanes) == min(512, at_once // width_m)
    for other in maps[1:]:
        assert other == pytest.approx(maps[0], abs=1e-5, nan_ok=True)


def test_a_region_gives_the_values_of_the_whole(write_slide: WriteSlide, predictor: Predictor) -> None:
    chosen = AnalysisParameters(MPP, PATCH_M, 16, 0.5, 0, 0, mode="dense")
    shape = shapely.Polygon([(110.5, 200), (600, 133.3), (500, 640), (150, 500)])
    with Slide.open(write_slide(pixels(700, 900), 0.92)) as slide:
        whole = analyse(slide, predictor, chosen, {}).map
        part = analyse(slide, predictor, replace(chosen, region_l0=shape), {}).map
    row0, column0 = part.lattice.row0 - whole.lattice.row0, part.lattice.column0 - whole.lattice.column0
    same_cells = whole.values[row0 : row0 + part.lattice.rows, column0 : column0 + part.lattice.columns]
    asked = np.isfinite(part.values)
    assert asked.sum() > 50
    assert part.values[asked] == pytest.approx(same_cells[asked], abs=1e-5)


def test_the_same_tissue_in_both_modes(write_slide: WriteSlide, predictor: Predictor) -> None:
    path = write_slide(pixels(500, 600), 0.92)
    known = []
    for mode in ("patch", "dense"):
        with Slide.open(path) as slide:
            analysis = analyse(slide, predictor, AnalysisParameters(MPP, PATCH_M, 16, 0.5, 0, 0, mode=mode), {})
        known.append(np.isfinite(analysis.map.values))
    assert np.array_equal(known[0], known[1])
    assert known[0].any()
    assert not known[0].all()


@dataclass
class Kept:
    """A checkpoint in memory that can end the run after some pieces."""

    stop_after: int = 10**9

    def __post_init__(self) -> None:
        self.pieces: dict[str, Piece] = {}
        self.loaded = 0

    def load(self, unit: str) -> Piece | None:
        self.loaded += unit in self.pieces
        return self.pieces.get(unit)

    def store(self, unit: str, piece: Piece) -> None:
        if len(self.pieces) == self.stop_after:
            raise KeyboardInterrupt
        self.pieces[unit] = replace(piece, values=piece.values.copy())


@pytest.mark.parametrize("mode", ["patch", "dense"])
def test_a_run_goes_on_where_it_was_killed(write_slide: WriteSlide, predictor: Predictor, mode: str) -> None:
    path = write_slide(pixels(300, 1300), MPP)
    chosen = AnalysisParameters(MPP, PATCH_M, 64, 0.5, 0, 0, mode=mode)
    kept = Kept(stop_after=1)
    with Slide.open(path) as slide:
        undisturbed = analyse(slide, predictor, chosen, {}).map.values
        with pytest.raises(KeyboardInterrupt):
            analyse(slide, predictor, chosen, {}, checkpoint=kept)
        kept.stop_after = 10**9
        steps: list[Progress] = []
        resumed = analyse(slide, predictor, chosen, {}, checkpoint=kept, progress=steps.append).map.values
    assert kept.loaded == 1
    assert resumed.tobytes() == undisturbed.tobytes()
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert steps[-1].done == steps[-1].total


@pytest.mark.parametrize("mode", ["patch", "dense"])
def test_a_dark_slide_stays_one_when_its_run_goes_on(write_slide: WriteSlide, predictor: Predictor, mode: str) -> None:
    """The pieces of before were seen too: colours are judged over all of the slide."""
    dark = np.random.default_rng(0).integers(0, 60, (300, 1300, 3), dtype=np.uint8)
    chosen = AnalysisParameters(MPP, PATCH_M, 64, 0.5, 0, 0, mode=mode)
    kept = Kept()
    with Slide.open(write_slide(dark, MPP)) as slide:
        first = analyse(slide, predictor, chosen, {}, checkpoint=kept)
        again = analyse(slide, predictor, chosen, {}, checkpoint=kept)
    assert kept.loaded == len(kept.pieces) > 1
    assert (first.outcome, again.outcome) == ("not_evaluable", "not_evaluable")
    assert again.warnings == first.warnings


@pytest.mark.parametrize("mode", ["patch", "dense"])
@pytest.mark.parametrize("ending", [CancelledError, KeyboardInterrupt])
def test_no_thread_reads_a_slide_that_is_closed(
    write_slide: WriteSlide, predictor: Predictor, monkeypatch: pytest.MonkeyPatch, mode: str, ending: type[BaseException]
) -> None:
    seen = readers_at_close(monkeypatch)
    chosen = AnalysisParameters(MPP, PATCH_M, 64, 0.5, 0, 0, mode=mode)
    asked: list[None] = []

    def cancelled() -> bool:
        asked.append(None)
        return ending is CancelledError and len(asked) > 1

    kept = Kept(stop_after=10**9 if ending is CancelledError else 0)
    with pytest.raises(ending), Slide.open(write_slide(pixels(700, 2600), MPP)) as slide:
        analyse(slide, predictor, chosen, {}, cancelled=cancelled, checkpoint=kept)
    assert seen == [0]


def test_a_stride_that_is_no_multiple_of_16_is_refused(write_slide: WriteSlide, predictor: Predictor) -> None:
    with Slide.open(write_slide(pixels(200, 200), MPP)) as slide:
        lattice = Grid(MPP, PATCH_M, 24, slide.pixel_size).covering(slide.bounds_l0)
        with pytest.raises(StrideInvalidError, match="24"):
            fill_dense(slide, predictor, lattice, np.ones((lattice.rows, lattice.columns), np.bool_), Run())


@pytest.mark.parametrize("stride_m", [8, 16, 48, 64])
def test_the_overview_spares_no_tissue(write_slide: WriteSlide, stride_m: int) -> None:
    """Specks of every size on glass: whatever is tissue by the rule on full pixels must be possible tissue in the overview."""
    rng = np.random.default_rng(8)
    image = np.full((2400, 2000, 3), 250, np.uint8)
    for _ in range(60):
        side = int(rng.integers(4, 200))
        y, x = rng.integers(0, 2400 - side), rng.integers(0, 1600 - side)
        image[y : y + side, x : x + side] = rng.integers(0, 201)
    with Slide.open(write_slide(image, 0.92, levels=5)) as slide:
        lattice = Grid(MPP, PATCH_M, stride_m, slide.pixel_size).covering(slide.bounds_l0)
        possible = possible_tissue(slide, lattice)
        assert possible is not None
        whole_m = lattice.patch_region_m(0, 0, lattice.columns, lattice.rows)
        field = slide.read_region(lattice.grid.l0_from_m(whole_m), MPP)
    tissue = tissue_patches(field, PATCH_M, stride_m)
    assert tissue.any()
    assert not np.any(tissue & ~possible)
    assert possible[:, -3:].sum() == 0  # and glass is spared


@pytest.mark.parametrize("stride_m", [8, 24, 40])
def test_a_lone_ring_is_no_glass_wherever_it_begins(write_slide: WriteSlide, stride_m: int) -> None:
    """A ring as wide as a patch: 64² - 44² = 2160 of 4096 px are tissue, just over half; moved by 8 px, it would be glass."""
    corner_m = 17 * 8 if stride_m == 8 else 5 * stride_m
    image = np.full((900, 900, 3), 255, np.uint8)  # at half the model's pixel size
    for colour, inset_m in ((180, 0), (255, 10)):
        begin, end = 2 * (corner_m + inset_m), 2 * (corner_m + PATCH_M - inset_m)
        image[begin:end, begin:end] = colour
    with Slide.open(write_slide(image, 0.92, levels=5)) as slide:
        lattice = Grid(MPP, PATCH_M, stride_m, slide.pixel_size).covering(slide.bounds_l0)
        possible = possible_tissue(slide, lattice)
        field = slide.read_region(lattice.grid.l0_from_m(lattice.patch_region_m(0, 0, lattice.columns, lattice.rows)), MPP)
    assert possible is not None
    cell = (corner_m // stride_m - lattice.row0, corner_m // stride_m - lattice.column0)
    assert tissue_patches(field, PATCH_M, stride_m)[cell]
    assert possible[cell]
    assert possible.mean() < 0.1


def test_no_overview_without_a_small_level(write_slide: WriteSlide) -> None:
    with Slide.open(write_slide(pixels(300, 300), MPP)) as slide:
        assert possible_tissue(slide, Grid(MPP, PATCH_M, 16, PixelSize(MPP, MPP)).covering(Region(0, 0, 300, 300))) is None


def test_a_run_says_where_its_time_went(write_slide: WriteSlide, predictor: Predictor, tmp_path: Path) -> None:
    with Slide.open(write_slide(pixels(500, 600), 0.92)) as slide:
        seconds = analyse(slide, predictor, AnalysisParameters(MPP, PATCH_M, 16, 0.5, 0, 0, mode="dense"), {}).seconds
    assert set(seconds) == {"map", "contours", "network", "waiting", "decode", "resample"}
    assert all(value >= 0 for value in seconds.values())
    assert seconds["network"] + seconds["waiting"] <= seconds["map"]
