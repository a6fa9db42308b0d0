from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.training.studies.tiny import study_file

STUDIES = Path(__file__).parents[3] / "models" / "recipes" / "studies"


def study(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hepamap", "study", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_errors_are_a_sentence_and_a_cure(data: Path, tmp_path: Path) -> None:
    wrong = study_file(tmp_path, ("batch_sizes", "batch_size"))
    for code, arguments in (
        ("recipe_invalid", ("factors", wrong, data, "--out", tmp_path / "out")),
        ("parameter_invalid", ("factors", STUDIES / "factors.toml", data, "--out", tmp_path / "out", "--head", "Gap")),
        ("patches_too_few", ("data-size", STUDIES / "data-size.toml", data, "--out", tmp_path / "out")),
        ("cohort_invalid", ("stride", tmp_path / "none.csv", "--model", "hcc-5x", "--out", tmp_path / "out")),
    ):
        done = study(*arguments)
        assert done.returncode == 1, done.stderr
        assert f"[{code}]" in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
