from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hepamap.cli.app import app
from hepamap.errors import ParameterError
from hepamap.model_pack import load_pack
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
