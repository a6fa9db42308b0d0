import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hepamap.benchmark.patch_answers import main
from hepamap.model_pack import ModelPack
from hepamap.predictor import Predictor
from tests.conftest import WriteSlide
from tests.packs import write_network_pack

TISSUE = (slice(128, 288), slice(96, 224))
"""Rows and columns, model px."""


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> ModelPack:
    return write_network_pack(tmp_path_factory.mktemp("models"), "tiny-5x")


@pytest.fixture
def models(pack: ModelPack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEPAMAP_MODELS_DIR", str(pack.folder.parents[1]))


@pytest.fixture
def image_m() -> NDArray[np.uint8]:
    """A slide at the model's resolution: glass with a rectangle of tissue in it."""
    image = np.full((400, 416, 3), 244, np.uint8)
    image[TISSUE] = np.random.default_rng(2).integers(40, 180, image[TISSUE].shape)
    return image


def enlarge(image_m: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """At 0.46 µm/px: 4 × 4 equal pixels for each of 1.84 µm."""
    return image_m.repeat(4, axis=0).repeat(4, axis=1)


def corners_with_tissue(wanted: NDArray[np.bool_]) -> set[tuple[int, int]]:
    """Corners (x, y) of the patches on a lattice of 16 px that are at least half tissue, and whose cell is wanted."""
    tissue = np.zeros((400, 416), np.bool_)
    tissue[TISSUE] = True
    return {
        (x, y)
        for y in range(0, 400 - 63, 16)
        for x in range(0, 416 - 63, 16)
        if tissue[y : y + 64, x : x + 64].mean() >= 0.5 and wanted[y + 24 : y + 40, x + 24 : x + 40].any()
    }


def answers(slide: Path, out: Path, *more: str) -> dict[str, Any]:
    assert main([str(slide), "--model", "tiny-5x", "--out", str(out), *more]) == 0
    with np.load(out) as stored:
        return dict(stored)


@pytest.mark.usefixtures("models")
def test_the_patches_with_tissue_and_answers_for_some_of_them(
    write_slide: WriteSlide, tmp_path: Path, pack: ModelPack, image_m: NDArray[np.uint8]
) -> None:
    found = answers(write_slide(enlarge(image_m), 0.46), tmp_path / "answers.npz")
    corners = found["corners_m"]
    assert sorted(map(tuple, corners.tolist())) == sorted(corners_with_tissue(np.ones((400, 416), np.bool_)))
    assert found["scale"] == pytest.approx([4, 4], rel=1e-6)
    assert found["size_l0"].tolist() == [1664, 1600]
    assert (found["mpp"], found["patch"], found["stride"]) == (1.84, 64, 16)
    assert Path(str(found["weights"])) == (pack.folder / pack.manifest.weights.file).resolve()

    assert len(set(found["sample"].tolist())) == 20
    seen = [image_m[y : y + 64, x : x + 64] for x, y in corners[found["sample"]]]
    assert np.array_equal(found["pixels"], seen)
    expected = Predictor.load(pack).predict(np.stack(seen))
    assert found["probabilities"] == pytest.approx(expected, abs=1e-6)
    assert np.ptp(expected) > 1e-4  # or any order of the patches would do


@pytest.mark.usefixtures("models")
def test_only_a_region(write_slide: WriteSlide, tmp_path: Path, image_m: NDArray[np.uint8]) -> None:
    region = tmp_path / "region.geojson"
    square_l0 = [[480, 640], [720, 640], [720, 800], [480, 800], [480, 640]]
    region.write_text(json.dumps({"type": "Polygon", "coordinates": [square_l0]}), encoding="utf-8")
    found = answers(write_slide(enlarge(image_m), 0.46), tmp_path / "answers.npz", "--region", str(region))
    wanted = np.zeros((400, 416), np.bool_)
    wanted[160:200, 120:180] = True
    expected = corners_with_tissue(wanted)
    assert sorted(map(tuple, found["corners_m"].tolist())) == sorted(expected)
    assert 0 < len(expected) < 20
    assert len(found["sample"]) == len(found["probabilities"]) == len(expected)


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--out", "none/answers.npz"], "none/answers.npz cannot be written: No such file or directory."),
        (["--out", "answers.npz", "--region", "none.geojson"], "The region file none.geojson cannot be read as GeoJSON."),
        (["--out", "answers.npz", "--model", "none"], "none"),
    ],
)
def test_bad_input_is_named(
    write_slide: WriteSlide,
    tmp_path: Path,
    image_m: NDArray[np.uint8],
    more: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    slide = write_slide(enlarge(image_m), 0.46)
    assert main([str(slide), "--model", "tiny-5x", *more]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("models")
def test_glass_alone_is_refused(write_slide: WriteSlide, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slide = write_slide(np.full((600, 600, 3), 244, np.uint8), 0.46)
    assert main([str(slide), "--model", "tiny-5x", "--out", str(tmp_path / "answers.npz")]) == 2
    assert "There is no tissue" in capsys.readouterr().err
    assert not (tmp_path / "answers.npz").exists()
