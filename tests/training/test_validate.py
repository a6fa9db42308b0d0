import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from hepamap.detection import Detector
from hepamap.geometry import Grid, PixelSize, Region
from hepamap.model_pack import Calibration, OperatingPoint, find_pack, load_pack, write_pack
from hepamap.predictor import Predictor
from hepamap.probability_map import ProbabilityMap
from hepamap.training import validate as validation
from hepamap.training.cohort import CohortSlide
from hepamap.training.errors import ClassesUnknownError, CohortInvalidError
from hepamap.training.evaluate import Judged, SlideScore
from hepamap.training.evaluation.errors import NothingMeasuredError, OneClassError, SplitEmptyError
from tests.conftest import write_tiff_slide
from tests.packs import manifest_body, write_network_pack

pytestmark = pytest.mark.usefixtures("thin_networks")

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
    return validation._report(tally, 16)


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


def test_a_slide_without_tumour_has_no_part_in_the_mean_of_the_overlaps() -> None:
    with_tumour = judged(maps(), shapely.box(0, 0, 9, 9))
    benign = replace(with_tumour, score=replace(with_tumour.score, iou=float("nan")))
    found = validation._of_mode([with_tumour, benign])
    assert (found["iou"], found["iou_lowest"], found["iou_slides"], found["sensitivity_slides"]) == (0.9, 0.9, 1, 2)


def test_two_slides_of_one_name_are_refused(tmp_path: Path, row: CohortSlide) -> None:
    write_network_pack(tmp_path / "models", "constant", bias=(0.0, 2.0))
    other = replace(row, slide=tmp_path / "elsewhere" / row.slide.name)
    with pytest.raises(CohortInvalidError, match="Two slides are named “slide”"):
        validation.validate("constant", [row, other], Detector(tmp_path / "models"))


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


def test_the_outcome_stands_in_the_manifest(tmp_path: Path, row: CohortSlide, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that always answers the same says the same in both modes."""
    monkeypatch.setattr("hepamap.predictor.backend.has_unused_gpu", lambda *_: True)
    write_network_pack(tmp_path / "models", "constant", bias=(0.0, 2.0))
    detector = Detector(tmp_path / "models")
    before = find_pack(detector.models_dir, "constant")
    found = validation.validate("constant", [row], detector)
    after = load_pack(validation.write_validation(found).folder)
    assert after.manifest.default_mode == "dense"
    assert after.manifest.weights == before.manifest.weights
    measured = after.manifest.evaluation["modes"]
    assert measured == found.report
    assert (measured["slides"], measured["precision"]) == (["slide"], detector.predictor(before).policy)
    assert [warning["code"] for warning in measured["warnings"]] == ["gpu_not_used"]
    assert (measured["contour_iou"], measured["map_mean_absolute_difference"]) == (1.0, 0.0)
    assert "dense mode may be the default" in validation.markdown(found)
    assert "left out" not in validation.markdown(found)
    partly = replace(found, report={**found.report, "not_evaluable": ["dark"]})
    assert "Not evaluable, and left out: dark." in validation.markdown(partly)
    worse = replace(found, report={**found.report, "dense_may_be_default": False})
    assert validation.write_validation(worse).manifest.default_mode == "patch"


def test_what_a_network_had_to_leave_is_said() -> None:
    """The first slide's network left the GPU; the next one has it again."""
    tally = validation._Tally()
    item = judged(maps(), shapely.box(0, 0, 9, 9))
    validation._compare("s", {"patch": item, "dense": item}, tally)
    for policy, warnings in (("float32", [("gpu_memory", "It ran on the CPU.")]), ("mixed_float16", []), ("float32", [])):
        predictor = Predictor(None, 64, policy=policy)
        predictor.warnings += warnings
        tally.note(predictor)
    found = validation._report(tally, 16)
    assert found["precision"] == "float32, mixed_float16"
    assert found["warnings"] == [{"code": "gpu_memory", "message": "It ran on the CPU."}]


def test_a_slide_without_tumour_has_no_part_in_the_sensitivity() -> None:
    """Its own is a ratio of nothing to nothing; the mean is that of the other."""
    tally = validation._Tally()
    for name, sensitivity in (("a", 0.8), ("b", float("nan"))):
        item = judged(maps(), shapely.box(0, 0, 9, 9))
        item = replace(item, score=replace(item.score, sensitivity=sensitivity))
        validation._compare(name, {"patch": item, "dense": item}, tally)
    found = validation._report(tally, 16)
    for mode in ("patch", "dense"):
        assert (found[mode]["sensitivity"], found[mode]["sensitivity_slides"]) == (0.8, 1)
        assert (found[mode]["specificity"], found[mode]["specificity_slides"]) == (0.7, 2)


def test_what_is_not_evaluable_in_one_mode_is_left_out_of_both() -> None:
    tally = validation._Tally()
    item = judged(maps(), shapely.box(0, 0, 9, 9))
    refused = replace(item, found_l0=None, truth=item.truth[:0], answer=item.answer[:0])
    validation._compare("a", {"patch": item, "dense": item}, tally)
    alone = validation._report(tally, 16)
    validation._compare("b", {"patch": item, "dense": refused}, tally)
    assert validation._report(tally, 16) == {**alone, "slides": ["a"], "not_evaluable": ["b"]}


def test_slides_of_which_none_is_evaluable_are_refused(tmp_path: Path, row: CohortSlide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hepamap.plausibility._MIN_HE_SHARE", 1.1)
    write_network_pack(tmp_path / "models", "constant", bias=(0.0, 2.0))
    with pytest.raises(NothingMeasuredError, match="None of the slides is evaluable: slide"):
        validation.validate("constant", [row], Detector(tmp_path / "models"))


def test_one_class_is_refused() -> None:
    item = judged(maps(), shapely.box(0, 0, 9, 9))
    item = replace(item, truth=np.zeros_like(item.truth))
    with pytest.raises(OneClassError, match="0 are tumour"):
        report(item, item)


def test_one_class_and_unknown_classes_are_refused_before_any_map(tmp_path: Path, row: CohortSlide) -> None:
    write_network_pack(tmp_path / "models", "constant")
    detector = Detector(tmp_path / "models")
    text = row.annotations.read_text()
    liver_only = tmp_path / "liver.geojson"
    liver_only.write_text(text.replace('"Tumor"', '"Ignore*"'))

    def stop(_: object) -> None:
        raise AssertionError("a map was begun")

    with pytest.raises(OneClassError, match="Nothing is tumour on the slides to validate on"):
        validation.validate("constant", [replace(row, annotations=liver_only)], detector, progress=stop)
    grade = tmp_path / "grade.geojson"
    grade.write_text(text.replace('"Tumor"', '"Grade 2"').replace('"Non-tumor"', '"Grade 0"'))
    with pytest.raises(ClassesUnknownError, match="Grade 2"):
        validation.validate("constant", [replace(row, annotations=grade)], detector, progress=stop)


def test_slides_that_choose_are_not_those_of_the_test(tmp_path: Path) -> None:
    table = tmp_path / "c.csv"

    def write(*splits: str) -> None:
        rows = [f"{split}.tif,{split}.geojson,{split},{split}" for split in splits]
        table.write_text("\n".join(["slide,annotations,group,split", *rows]))

    write("train", "val", "test")
    assert [row.split for row in validation.slides_of(table, None)] == ["val"]
    assert [row.split for row in validation.slides_of(table, "test")] == ["test"]
    write("test")  # as the held-out phantoms
    assert [row.split for row in validation.slides_of(table, None)] == ["test"]
    with pytest.raises(SplitEmptyError, match="“val”") as caught:
        validation.slides_of(table, "val")
    assert "test" in caught.value.cure
    with pytest.raises(SplitEmptyError):
        validation.validate("any", [], Detector(tmp_path))


def test_what_was_measured_in_the_other_mode_is_said_to_be(tmp_path: Path) -> None:
    slides = {"mode": "patch", "slides": 3}
    slides |= {"groups": 3, "split": "test", "stride": 16, "interval": "95%", "youden_per_slide": {}, "at_default_threshold": {}}
    calibration = Calibration(temperature=1.5, expected_error=0.1, expected_error_at_temperature=0.05)
    changes = {
        "calibration": calibration,
        "evaluation": {"slides": slides, "operating_points_remarks": ["Two coincide."]},
        "operating_points": (OperatingPoint(name="sensitive", threshold=0.3),),
    }
    body = manifest_body().model_copy(update=changes)
    pack = write_pack(tmp_path / "tiny-5x" / "1.0.0", body, {"a/kernel": np.zeros(1)}, "# Mine\n")
    figures = dict.fromkeys(("auc", "iou", "sensitivity", "specificity"), 0.9)
    as_good = validation.Validation(pack, {"patch": figures, "dense": figures, "dense_may_be_default": False})
    same = validation.write_validation(as_good)  # patch stays
    assert same.manifest.calibration == calibration
    assert same.manifest.evaluation["operating_points_remarks"] == ["Two coincide."]
    changed = validation.write_validation(replace(as_good, pack=same, report={**as_good.report, "dense_may_be_default": True}))
    assert changed.manifest.default_mode == "dense"
    assert changed.manifest.calibration is None
    remarks = changed.manifest.evaluation["operating_points_remarks"]
    assert remarks[0] == "Two coincide."
    assert "of the mode patch, which is not the default" in remarks[1]
    assert remarks[1] in (changed.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    back = validation.write_validation(replace(as_good, pack=changed))
    assert back.manifest.evaluation["operating_points_remarks"] == ["Two coincide."]


def test_a_head_that_flattens_is_refused(tmp_path: Path, row: CohortSlide) -> None:
    pack = write_network_pack(tmp_path / "models", "constant")
    text = (pack.folder / "model.json").read_text()
    (pack.folder / "model.json").write_text(text.replace('"GAP"', '"FC512"'))
    with pytest.raises(validation.NoDenseModeError, match="FC512"):
        validation.validate("constant", [row], Detector(tmp_path / "models"))
