import json
from pathlib import Path

import numpy as np
import pytest
import shapely

from hepamap.geometry import Grid, Lattice, PixelSize, Region
from hepamap.probability_map import ProbabilityMap
from hepamap.training.cohort import CohortSlide
from hepamap.training.evaluate import judge_map, markdown_table, patch_labels
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
    got = judge_map(row, "m", half_map(1024), PARAMETERS, 1.0).score
    assert (got.auc, got.sensitivity, got.specificity) == (1.0, 1.0, 1.0)
    assert got.shift is not None
    assert abs(got.shift.x_cell) <= 0.5  # cells do not end where the tissue does
    assert got.iou > 0.85
    assert got.tumour_true_mm2 == pytest.approx((1024 * 0.46e-3) ** 2, rel=1e-5)


def test_a_map_that_is_two_cells_off(row: CohortSlide) -> None:
    perfect, shifted = (judge_map(row, "m", half_map(edge), PARAMETERS, 1.0).score for edge in (1024, 1024 + 128))
    assert shifted.iou < perfect.iou
    assert shifted.sensitivity == 1.0
    assert shifted.specificity == pytest.approx(perfect.specificity - 2 / 16, abs=0.03)


def test_the_table_names_what_is_measured(row: CohortSlide) -> None:
    lines = markdown_table([judge_map(row, "hcc-5x", half_map(1024), PARAMETERS, 12.0).score]).splitlines()
    assert len(lines) == 5
    assert all(line.count("|") == lines[0].count("|") for line in lines[:3])
    assert lines[4].startswith("Mean displacement: ")
    assert "| slide | 0.46 | hcc-5x |" in lines[2]
