import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from hepamap.detection import Detector
from hepamap.geometry import Grid, PixelSize, Region
from hepamap.model_pack import find_pack, load_pack
from hepamap.probability_map import ProbabilityMap
from hepamap.training import validate as validation
from hepamap.training.cohort import CohortSlide
from hepamap.training.evaluate import Judged, SlideScore
from tests.conftest import write_tiff_slide
from tests.packs import write_network_pack

LATTICE = Grid(1.0, 64, 16, PixelSize(1.0, 1.0)).covering(Region(0, 0, 160, 160))


def judged(values: NDArray[np.float32], found: shapely.Polygon) -> Judged:
    """The left half is tumour; every cell with a value has a label."""
    truth = np.zeros(values.shape, np.bool_)
    truth[:, : values.shape[1] // 2] = True
    known = np.isfinite(values)
    score = SlideScore("s", 1.0, "m", 0.9, 0.8, 0.7, 1.0, None, 1.0, 1.0, 2.0)
    return Judged(score, ProbabilityMap(values, LATTICE, {}), found, truth[known], values[known])


def maps() -> NDArray[np.float32]:
    values = np.full((LATTICE.rows, LATTICE.columns), 0.2, np.float32)
    values[:, : LATTICE.columns // 2] = 0.8
    return values


def report(patch: Judged, dense: Judged) -> dict[str, object]:
    tally = validation._Tally()
    validation._compare("s", {"patch": patch, "dense": dense}, tally)
    return validation._report(tally, [], 16)


def test_the_numbers_are_those_of_the_arithmetic() -> None:
    values = maps()
    shifted = values.copy()
    shifted[0] += 0.1
    found = report(judged(values, shapely.box(0, 0, 100, 100)), judged(shifted, shapely.box(0, 0, 100, 96)))
    assert found["map_mean_absolute_difference"] == pytest.approx(0.1 / LATTICE.rows, abs=1e-4)
    assert found["contour_iou"] == pytest.approx(0.96)
    assert found["patch"]["auc"] == found["dense"]["auc"] == 1.0  # type: ignore[index]
    assert found["dense_may_be_default"] is True


def test_contours_that_differ_forbid_it() -> None:
    one, other = judged(maps(), shapely.box(0, 0, 100, 100)), judged(maps(), shapely.box(0, 0, 100, 94))
    assert report(one, other)["dense_may_be_default"] is False


def test_a_lower_auc_forbids_it() -> None:
    worse = maps()
    worse[0, 0] = 0.1  # one tumour cell below every other cell
    tumour_cells = LATTICE.rows * (LATTICE.columns // 2)
    found = report(judged(maps(), shapely.box(0, 0, 1, 1)), judged(worse, shapely.box(0, 0, 1, 1)))
    assert found["dense"]["auc"] == pytest.approx(1 - 1 / tumour_cells, abs=1e-4)  # type: ignore[index]
    assert 1 / tumour_cells > 0.005
    assert found["dense_may_be_default"] is False


def test_cells_without_data_in_one_mode_are_not_compared() -> None:
    holey = maps()
    holey[0] = np.nan
    holey[1] += 0.1
    found = report(judged(maps(), shapely.box(0, 0, 9, 9)), judged(holey, shapely.box(0, 0, 9, 9)))
    assert found["map_mean_absolute_difference"] == pytest.approx(0.1 / (LATTICE.rows - 1), abs=1e-4)


@pytest.fixture
def row(tmp_path: Path) -> CohortSlide:
    image = np.random.default_rng(0).integers(90, 190, (420, 520, 3), dtype=np.uint8)
    slide = write_tiff_slide(tmp_path / "slide.tif", image, 1.84)
    features = [
        {"type": "Feature", "properties": {"classification": name}, "geometry": shapely.geometry.mapping(shape)}
        for name, shape in (("Tumor", shapely.box(0, 0, 260, 420)), ("Non-tumor", shapely.box(260, 0, 520, 420)))
    ]
    annotations = tmp_path / "slide.geojson"
    annotations.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return CohortSlide(slide, annotations, "one", "test")


def test_the_outcome_stands_in_the_manifest(tmp_path: Path, row: CohortSlide) -> None:
    """A network that always answers the same says the same in both modes."""
    write_network_pack(tmp_path / "models", "constant", bias=(0.0, 2.0))
    detector = Detector(tmp_path / "models")
    before = find_pack(detector.models_dir, "constant")
    found = validation.validate("constant", [row], detector)
    after = load_pack(validation.write_validation(found).folder)
    assert after.manifest.default_mode == "dense"
    assert after.manifest.weights == before.manifest.weights
    measured = after.manifest.evaluation["modes"]
    assert measured == found.report
    assert measured["slides"] == ["slide"]
    assert (measured["contour_iou"], measured["map_mean_absolute_difference"]) == (1.0, 0.0)
    assert "dense mode may be the default" in validation.markdown(found)
    worse = replace(found, report={**found.report, "dense_may_be_default": False})
    assert validation.write_validation(worse).manifest.default_mode == "patch"


def test_a_head_that_flattens_is_refused(tmp_path: Path, row: CohortSlide) -> None:
    pack = write_network_pack(tmp_path / "models", "constant")
    text = (pack.folder / "model.json").read_text()
    (pack.folder / "model.json").write_text(text.replace('"GAP"', '"FC512"'))
    with pytest.raises(validation.NoDenseModeError, match="FC512"):
        validation.validate("constant", [row], Detector(tmp_path / "models"))
