from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hepamap.cli.app import app
from hepamap.errors import OutputNotWritableError, ParameterError
from hepamap.model_pack import find_pack, load_pack
from hepamap.training import validate as validation
from tests.training.conftest import box, feature, toy_pixels, tumour_and_liver, write_slide
from tests.training.evaluation.conftest import GivingWayDetector, RedDetector


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch, detector: RedDetector) -> list[str]:
    monkeypatch.setattr("hepamap.detection.Detector", RedDetector)
    return ["evaluate", "--model", "tiny-5x", "--models-dir", str(detector.models_dir), "--resamples", "100"]


def test_the_table_of_the_readme_comes_first(cohort: Path, options: list[str]) -> None:
    answer = CliRunner().invoke(app, [*options, str(cohort)])
    assert answer.exit_code == 0, answer.output
    lines = answer.stdout.splitlines()
    assert lines[0].startswith("| slide | µm/px | model | IoU | AUC |")
    assert lines[2].startswith("| s3 | 1.84 | tiny-5x | ")
    assert lines[4].startswith("Mean displacement: ")
    assert "## Slides: means over slides (table 1)" in lines


def test_warnings_of_the_network_are_said(cohort: Path, options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hepamap.detection.Detector", GivingWayDetector)
    answer = CliRunner().invoke(app, [*options, str(cohort)])
    assert answer.exit_code == 0, answer.output
    assert "  warning: It ran on the CPU. [gpu_failed]" in answer.stderr.splitlines()


def test_from_table_to_pack(cohort: Path, options: list[str], detector: RedDetector, tmp_path: Path) -> None:
    out = tmp_path / "out"
    answer = CliRunner().invoke(app, [*options, str(cohort), "--out", str(out), "--write", "--stride", "16", "--stride", "64"])
    assert answer.exit_code == 0, answer.output
    assert len(json.loads((out / "report.json").read_text())["runs"]) == 2
    assert str(out / "tables.md") in answer.stderr
    assert "written into tiny-5x@1.0.0" in answer.stderr
    assert load_pack(detector.models_dir / "tiny-5x" / "1.0.0").manifest.calibration is not None


def test_nothing_to_evaluate_on_is_said(options: list[str]) -> None:
    answer = CliRunner().invoke(app, options)
    assert isinstance(answer.exception, ParameterError)
    assert answer.exception.message == "There is nothing to evaluate on."


@pytest.mark.parametrize("command", ["evaluate", "validate"])
def test_a_pack_that_cannot_be_written_is_known_before_the_maps(
    cohort: Path, options: list[str], detector: RedDetector, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def refuse(**_: object) -> str:
        raise OSError(30, "Read-only file system")

    def begin(*_: object, **__: object) -> None:
        raise AssertionError("a map was begun")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    monkeypatch.setattr("hepamap.training.evaluation.run.KeptMaps", begin)
    monkeypatch.setattr("hepamap.training.validate.validate", begin)
    asked = [*options, str(cohort), "--write", "--out", str(cohort.parent / "out")]
    if command == "validate":
        asked = ["models", "validate", "tiny-5x", str(cohort), "--models-dir", str(detector.models_dir)]
    answer = CliRunner().invoke(app, asked)
    assert isinstance(answer.exception, OutputNotWritableError), answer.output
    assert "tiny-5x/1.0.0 cannot be written (Read-only file system)" in answer.exception.message


def test_a_validation_is_shown_also_where_it_cannot_be_kept(
    cohort: Path, detector: RedDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = dict.fromkeys(("auc", "iou", "sensitivity", "specificity", "seconds"), 0.9)
    report = {"patch": figures, "dense": figures, "dense_may_be_default": True, "slides": [], "not_evaluable": [], "warnings": []}
    report |= dict.fromkeys(("map_mean_absolute_difference", "contour_iou", "contour_iou_lowest"), 0.5)
    found = validation.Validation(find_pack(detector.models_dir, "tiny-5x"), report)

    def fill(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hepamap.training.validate.validate", lambda *_, **__: found)
    monkeypatch.setattr("hepamap.model_pack.os.replace", fill)
    answer = CliRunner().invoke(app, ["models", "validate", "tiny-5x", str(cohort), "--models-dir", str(detector.models_dir)])
    assert isinstance(answer.exception, OutputNotWritableError), answer.output
    assert "dense mode may be the default" in answer.stdout


def test_what_the_figures_will_lack_is_said(cohort: Path, options: list[str]) -> None:
    answer = CliRunner().invoke(app, [*options, str(cohort), "--tumour-class", "Tumuor"])
    assert answer.exit_code == 0, answer.output
    assert "warning: Nothing is tumour on the slides of the split “test”" in answer.stderr.splitlines()[0]


@pytest.mark.parametrize("command", ["models validate", "study stride", "study panels"])
def test_what_of_the_annotations_is_left_out_is_said(
    detector: RedDetector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    collection = tumour_and_liver()
    collection["features"].append(feature([box(0, 0, 9, 9)], classification={"name": "Stroma"}))
    (tmp_path / "s.geojson").write_text(json.dumps(collection))
    write_slide(tmp_path / "s.tif", toy_pixels(0))
    (tmp_path / "t.csv").write_text("slide,annotations,group,split\ns.tif,s.geojson,p,test\n")

    def stop(*_: object, **__: object) -> None:
        raise RuntimeError("the work was begun")

    for work in ("validate.validate", "studies.stride.study_stride", "panels.compute_panels"):
        monkeypatch.setattr(f"hepamap.training.{work}", stop)
    monkeypatch.setattr("hepamap.training.panels.looks", lambda *_: ())
    asked = {
        "models validate": ["tiny-5x", str(tmp_path / "t.csv")],
        "study stride": [str(tmp_path / "t.csv"), "--model", "tiny-5x", "--out", str(tmp_path / "out")],
        "study panels": [str(tmp_path / "s.tif"), "--annotations", str(tmp_path / "s.geojson"), "--out", str(tmp_path / "p.png")],
    }[command]
    if command == "study panels":
        asked += [f"--{name}=tiny-5x" for name in ("model-5x", "model-10x", "unet", "fcn")]
    answer = CliRunner().invoke(app, [*command.split(), *asked, "--models-dir", str(detector.models_dir)])
    assert str(answer.exception) == "the work was begun", answer.output
    assert "warning: s: 1 annotations of class “Stroma” were left out." in answer.stderr
