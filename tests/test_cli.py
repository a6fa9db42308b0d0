import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hepamap.model_pack import ModelPack
from tests.conftest import WriteSlide
from tests.packs import write_network_pack


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> ModelPack:
    return write_network_pack(tmp_path_factory.mktemp("models"), "constant-5x", bias=(0.0, 2.0))


def hepamap(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hepamap", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def detect(pack: ModelPack, *arguments: object) -> subprocess.CompletedProcess[str]:
    return hepamap("detect", *arguments, "--model", "constant-5x", "--models-dir", pack.folder.parents[1])


def pink(width: int = 900, height: int = 700) -> "np.typing.NDArray[np.uint8]":
    image = np.full((height, width, 3), 245, np.uint8)
    image[100:-100, 100:-100] = (190, 110, 160)
    return image


def assert_clean_error(done: subprocess.CompletedProcess[str], code: str) -> None:
    assert done.returncode == 1
    assert f"[{code}]" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 2  # the cause, and the cure


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HEPAMAP_PORT", "abc"),
        ("HEPAMAP_PATH_MAPPINGS", "{broken"),
        ("HEPAMAP_PATH_MAPPINGS", '["a", "b"]'),
        ("HEPAMAP_SLIDE_ROOTS", "[broken"),
        ("HEPAMAP_SLIDE_ROOTS", "~nobody-of-this-name/slides"),
        ("HEPAMAP_KEEP_RESULTS_DAYS", "1000000"),
    ],
)
def test_settings_that_cannot_be_used(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    done = hepamap("models", "list")
    assert_clean_error(done, "settings_invalid")
    assert name in done.stderr


def test_a_phantom_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    small = ("--width-mm", "0.5", "--height-mm", "0.5")
    assert_clean_error(hepamap("phantom", tmp_path / "file" / "slide.tif", *small), "output_not_writable")
    (tmp_path / "folder.tif").mkdir()
    assert_clean_error(hepamap("phantom", tmp_path / "folder.tif", "--overwrite", *small), "output_not_writable")


def test_the_default_model_is_that_of_the_settings(
    pack: ModelPack, write_slide: WriteSlide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEPAMAP_DEFAULT_MODEL", "constant-5x")
    monkeypatch.setenv("HEPAMAP_MODELS_DIR", str(pack.folder.parents[1]))
    done = hepamap("detect", write_slide(pink(), 0.46), "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["provenance"]["model"]["id"] == "constant-5x"


def test_several_slides_and_a_bad_one(pack: ModelPack, write_slide: WriteSlide, tmp_path: Path) -> None:
    folder = tmp_path / "slides"
    folder.mkdir()
    for name in ("a.tif", "b.tiff", "b.tif"):
        write_slide(pink(), 0.46, name=f"slides/{name}")
    (folder / "broken.svs").write_text("no slide")
    (folder / "notes.txt").write_text("no slide either, and nobody says it is")
    done = detect(pack, folder, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "3 of 4 slides done, 1 failed." in done.stdout
    assert "broken.svs: " in done.stderr
    assert "[not_a_slide]" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "b.tif", "b.tiff"]
    result = json.loads((tmp_path / "out" / "a" / "result.json").read_text())
    assert result["tumour_regions"] == 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--threshold", "1.5"], "threshold_invalid"),
        (["--stride", "17"], "stride_invalid"),
        (["--mpp", "29"], "resolution_too_coarse"),
        (["--mpp", "0"], "pixel_size_invalid"),
        (["--region", "no-such-file.geojson"], "region_invalid"),
    ],
)
def test_bad_parameters(pack: ModelPack, write_slide: WriteSlide, tmp_path: Path, arguments: list[str], code: str) -> None:
    assert_clean_error(detect(pack, write_slide(pink()), "--out", tmp_path / "out", *arguments), code)
    assert not (tmp_path / "out").exists()


def test_bad_slides_and_models(pack: ModelPack, tmp_path: Path) -> None:
    assert_clean_error(detect(pack, tmp_path / "none.svs", "--out", tmp_path / "out"), "slide_not_found")
    assert_clean_error(hepamap("detect", tmp_path / "none.svs", "--out", tmp_path / "out", "--model", "none"), "model_not_found")
    assert_clean_error(detect(pack, tmp_path, "--out", tmp_path / "out"), "not_a_slide")


def test_a_white_slide_is_an_empty_result_that_says_so(pack: ModelPack, write_slide: WriteSlide, tmp_path: Path) -> None:
    done = detect(pack, write_slide(np.full((300, 400, 3), 255, np.uint8), 0.46), "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "not_evaluable, no contours, tissue 0.00 mm²" in done.stdout
    assert "[no_tissue]" in done.stdout
    assert json.loads((tmp_path / "out" / "contours.geojson").read_text())["features"] == []
    # An overlap of 0 with a class that nobody knows, or of contours that were refused, would be a number about nothing.
    square = {"type": "Polygon", "coordinates": [[[0, 0], [90, 0], [90, 90], [0, 90], [0, 0]]]}
    drawn = {"type": "Feature", "properties": {"classification": {"name": "Grade 2"}}, "geometry": square}
    (tmp_path / "truth.geojson").write_text(json.dumps(drawn))
    compare = ("compare", tmp_path / "out", tmp_path / "truth.geojson")
    assert_clean_error(hepamap(*compare), "classes_unknown")
    said = hepamap(*compare, "--tumour-class", "Grade 2").stdout
    assert said == "not evaluable, nothing to compare: No tissue was found: all of it is glass, or black.\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_leaves_nothing(pack: ModelPack, write_slide: WriteSlide, tmp_path: Path, number: int) -> None:
    # Tissue enough for minutes of work.
    slide = write_slide(np.full((6000, 6000, 3), 150, np.uint8), 0.46)
    out = tmp_path / "results" / "out"
    command = [sys.executable, "-m", "hepamap", "detect", str(slide), "--out", str(out)]
    command += ["--model", "constant-5x", "--models-dir", str(pack.folder.parents[1])]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(8)
        os.kill(process.pid, number)
        assert process.stderr is not None
        errors = process.stderr.read()
        assert process.wait(timeout=60) == 130
    assert "Stopped. No result is half-written" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert not out.parent.exists() or not list(out.parent.iterdir())


def test_models(pack: ModelPack) -> None:
    where = ("--models-dir", pack.folder.parents[1])
    assert "constant-5x@1.0.0" in hepamap("models", "list", *where).stdout
    assert json.loads(hepamap("models", "show", "constant-5x", *where).stdout)["id"] == "constant-5x"
    assert hepamap("models", "verify", *where).returncode == 0


def test_verify_finds_changed_weights(tmp_path: Path) -> None:
    pack = write_network_pack(tmp_path, "changed")
    path = pack.folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert_clean_error(hepamap("models", "verify", "--models-dir", tmp_path), "pack_damaged")


def test_a_phantom(tmp_path: Path) -> None:
    arguments = ("phantom", tmp_path / "new" / "slide.tif", "--width-mm", "1", "--height-mm", "0.8", "--mpp", "1")
    assert hepamap(*arguments).returncode == 0
    assert json.loads((tmp_path / "new" / "slide.geojson").read_text())["features"]
    assert_clean_error(hepamap(*arguments), "output_exists")


def test_help_needs_no_keras() -> None:
    code = "import sys; from hepamap.cli import app; assert not {'keras', 'tensorflow'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
