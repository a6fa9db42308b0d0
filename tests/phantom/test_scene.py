"""The truth: valid, complete, and independent of pixels."""

from __future__ import annotations

import pytest
import shapely
from shapely.geometry import Polygon, shape
from shapely.geometry.base import BaseGeometry

from hepamap.errors import ParameterError
from hepamap.phantom import Kind, PhantomSpec, truth_collection, truth_of

SIZES_UM = {"resection": [(400, 400), (2000, 1500), (8000, 6000)], "biopsy": [(400, 400), (5000, 1600), (1700, 9000)]}


@pytest.mark.parametrize(
    ("kind", "width_um", "height_um"), [(kind, *size) for kind in ("resection", "biopsy") for size in SIZES_UM[kind]]
)
def test_truth_is_valid_disjoint_and_on_the_slide(kind: Kind, width_um: float, height_um: float) -> None:
    for seed in range(12):
        truth = truth_of(PhantomSpec(kind, width_um, height_um, seed=seed))
        assert truth.tumour.is_valid
        assert truth.liver.is_valid
        assert truth.tumour.area > 0
        assert shapely.intersection(truth.tumour, truth.liver).area < 1
        assert shapely.box(0, 0, width_um, height_um).contains(truth.tissue)


def test_resections_hold_much_of_both_classes() -> None:
    shares = [_tumour_share(PhantomSpec("resection", 8000, 6000, seed=seed)) for seed in range(20)]
    assert min(shares) > 0.1
    assert max(shares) < 0.75


def test_some_resections_have_islands_and_holes() -> None:
    truths = [truth_of(PhantomSpec("resection", 8000, 6000, seed=seed)).tumour for seed in range(12)]
    assert any(shapely.get_num_geometries(tumour) > 1 for tumour in truths)
    assert any(shapely.get_num_interior_rings(part).sum() > 0 for tumour in truths for part in shapely.get_parts(tumour))


def test_cores_are_about_a_millimetre_thick() -> None:
    for seed in range(8):
        tissue = truth_of(PhantomSpec("biopsy", 16000, 5000, seed=seed)).tissue
        widest_um = 2 * max(shapely.maximum_inscribed_circle(part).length for part in _polygons(tissue))
        assert 700 < widest_um < 1500


def test_truth_is_the_same_at_every_pixel_size() -> None:
    fine, coarse = (PhantomSpec("resection", 4000, 3000, mpp, seed=5) for mpp in (0.25, 1.0))
    assert truth_of(fine) == truth_of(coarse)
    areas_l0 = [sum(shape(feature["geometry"]).area for feature in truth_collection(spec)["features"]) for spec in (fine, coarse)]
    assert areas_l0[0] == pytest.approx(16 * areas_l0[1], rel=1e-4)


def test_biopsies_have_tumour_outlines_only() -> None:
    names = {
        kind: {f["properties"]["classification"]["name"] for f in truth_collection(PhantomSpec(kind, seed=3))["features"]}
        for kind in ("resection", "biopsy")
    }
    assert names == {"resection": {"Tumor", "Non-tumor"}, "biopsy": {"Tumor"}}


def test_content_chooses_the_tissue() -> None:
    mixed, liver, tumour, glass = (
        truth_of(PhantomSpec(seed=2, content=content)) for content in ("mixed", "liver", "tumour", "glass")
    )
    assert glass.tissue.is_empty
    assert liver.tumour.is_empty
    assert tumour.liver.is_empty
    assert liver.tissue.area == pytest.approx(mixed.tissue.area)
    assert tumour.tissue.area == pytest.approx(mixed.tissue.area)


def test_size_in_pixels_is_kept() -> None:
    spec = PhantomSpec.of_pixels(100_001, 70_003, mpp_x=0.2527, mpp_y=0.23)
    assert (spec.size_l0.width, spec.size_l0.height) == (100_001, 70_003)
    assert spec.height_um == pytest.approx(70_003 * 0.23)


@pytest.mark.parametrize(
    "wrong", [{"mpp_x": 0.0}, {"mpp_y": 50.0}, {"width_um": 10.0}, {"seed": -1}], ids=lambda wrong: next(iter(wrong))
)
def test_impossible_slides_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ParameterError, match=r"."):
        PhantomSpec(**wrong)  # type: ignore[arg-type]


def _polygons(geometry: BaseGeometry) -> list[Polygon]:
    return [part for part in shapely.get_parts(geometry) if isinstance(part, Polygon)]


def _tumour_share(spec: PhantomSpec) -> float:
    truth = truth_of(spec)
    return float(truth.tumour.area / truth.tissue.area)
