import json
from pathlib import Path

import numpy as np
import pytest
import shapely
from typer.testing import CliRunner

from hepamap.cli.app import app
from hepamap.geometry import Grid, Lattice, PixelSize, Region
from hepamap.probability_map import ProbabilityMap
from hepamap.results import StoredResult
from hepamap.training.cohort import CohortSlide
from hepamap.training.evaluate import compare, judge_map, markdown_table, patch_labels
from tests.conftest import write_tiff_slide

GRID = Grid(1.84, 64, 16, PixelSize(0.46, 0.46))
PARAMETERS = {"threshold": 0.5, "min_area_um2": 0.0, "min_hole_area_um2": 0.0}


def test_labels_follow_the_papers_test_rule() -> None:
    lattice = GRID.covering(Region(0, 0, 2048, 1024))
    tumour, annotated = shapely.box(0, 0, 1024, 1024), shapely.box(0, 0, 1536, 1024)
    labels = patch_labels(tumour, annotated, lattice)
    for row in range(lattice.rows):
        for column in range(lattice.columns):
            seen = lattice.grid.l0_from_m(lattice.patch_region_m(column, row))
            patch = shapely.box(seen.x, seen.y, seen.right, seen.bottom)
            if patch.intersection(annotated).area / patch.area <= 0.5:
                assert labels[row, column] == -1
            else:
                assert labels[row, column] == (patch.intersection(tumour).area / patch.area > 0.5)


@pytest.fixture
def row(tmp_path: Path) -> CohortSlide:
    """A slide whose left half is tumour, by its annotations."""
    slide = write_tiff_slide(tmp_path / "slide.tif", np.full((1024, 2048, 3), 150, np.uint8), 0.46)
    features = [
        {"type": "Feature", "properties": {"classification": name}, "geometry": shapely.geometry.mapping(shape)}
        for name, shape in (("Tumor", shapely.box(0, 0, 1024, 1024)), ("Non-tumor", shapely.box(1024, 0, 2048, 1024)))
    ]
    annotations = tmp_path / "slide.geojson"
    annotations.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return CohortSlide(slide, annotations, "one", "test")


def half_map(edge_l0: float) -> ProbabilityMap:
    """0.9 left of an edge, 0.1 right of it."""
    lattice: Lattice = GRID.covering(Region(0, 0, 2048, 1024))
    middles = lattice.origin_l0.x + (np.arange(lattice.columns) + 0.5) * lattice.cell_size_l0.x
    values = np.where(middles < edge_l0, 0.9, 0.1).astype(np.float32)
    return ProbabilityMap(np.tile(values, (lattice.rows, 1)), lattice, {})


def test_a_perfect_map(row: CohortSlide) -> None:
    got = judge_map(row, "m", half_map(1024), PARAMETERS, "ok", 1.0).score
    assert (got.auc, got.sensitivity, got.specificity) == (1.0, 1.0, 1.0)
    assert got.shift is not None
    assert abs(got.shift.x_cell) <= 0.5  # cells do not end where the tissue does
    assert got.iou > 0.85
    assert got.tumour_true_mm2 == pytest.approx((1024 * 0.46e-3) ** 2, rel=1e-5)


def test_a_map_that_is_two_cells_off(row: CohortSlide) -> None:
    perfect, shifted = (judge_map(row, "m", half_map(edge), PARAMETERS, "ok", 1.0).score for edge in (1024, 1024 + 128))
    assert shifted.iou < perfect.iou
    assert shifted.sensitivity == 1.0
    assert shifted.specificity == pytest.approx(perfect.specificity - 2 / 16, abs=0.03)


def test_the_table_names_what_is_measured(row: CohortSlide) -> None:
    lines = markdown_table([judge_map(row, "hcc-5x", half_map(1024), PARAMETERS, "ok", 12.0).score]).splitlines()
    assert len(lines) == 5
    assert all(line.count("|") == lines[0].count("|") for line in lines[:3])
    assert lines[4].startswith("Mean displacement: ")
    assert "| slide | 0.46 | hcc-5x |" in lines[2]


def test_what_is_not_evaluable_has_no_contours_and_no_figures(row: CohortSlide) -> None:
    judged = judge_map(row, "m", half_map(1024), PARAMETERS, "not_evaluable", 1.0)
    score = judged.score
    assert (judged.found_l0, score.tumour_found_mm2, score.known_iou, score.shift) == (None, None, None, None)
    assert np.isnan([score.auc, score.sensitivity, score.specificity]).all()
    assert len(judged.truth) == len(judged.answer) == 0
    lines = markdown_table([score]).splitlines()
    assert "| – | – | – | – | none | 0.22 / not evaluable | 1 |" in lines[2]
    assert len(lines) == 3  # no displacement


@pytest.mark.parametrize(
    ("outcome", "classes", "said"),
    [
        ("ok", ("Tumor", "Non-tumor"), "intersection over union with the annotations: 0."),
        ("ok", ("Non-tumor",), "no tumour is annotated"),
        ("not_evaluable", ("Tumor", "Non-tumor"), "not evaluable, nothing to compare: Too dark."),
    ],
)
def test_without_tumour_or_contours_there_is_no_overlap(
    row: CohortSlide, monkeypatch: pytest.MonkeyPatch, outcome: str, classes: tuple[str, ...], said: str
) -> None:
    drawn = json.loads(row.annotations.read_text())
    drawn["features"] = [item for item in drawn["features"] if item["properties"]["classification"] in classes]
    row.annotations.write_text(json.dumps(drawn))
    frame = {"name": "level0", "offset_x": 0, "offset_y": 0}
    warnings = [{"code": "dark", "message": "Too dark."}]
    summary = {"outcome": outcome, "warnings": warnings, "parameters": PARAMETERS, "frame": frame}
    stored = StoredResult(row.slide.parent, half_map(1024), summary)
    has_iou = said.endswith("0.")
    assert [value is not None for value in compare(stored, row.annotations)] == [has_iou, has_iou]
    monkeypatch.setattr("hepamap.results.open_result", lambda _: stored)
    answer = CliRunner().invoke(app, ["compare", str(row.slide.parent), str(row.annotations)])
    assert answer.stdout.startswith(said)
    assert len(answer.stdout.splitlines()) == 1 + has_iou
