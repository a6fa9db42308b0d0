import ast
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hepamap.benchmark import peers
from hepamap.benchmark.peers import Loaded, Own, PeerReport, Setting

BENCH = {
    "model": "hcc-5x@1.0.0",
    "slide": {"name": "a.svs"},
    "modes": [
        {"name": "authors' loop (5 patches, scaled)", "patches": 900, "seconds": 90.0},
        {"name": "patch", "patches": 900, "seconds": 6.0},
        {"name": "dense", "patches": 900, "seconds": 3.0},
    ],
}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_the_table_compares_patches_a_second() -> None:
    reports = [
        PeerReport("tiatoolbox 2.1.3", "8 / 0", 1000, 10.0, 2e-7, 0.0123),
        PeerReport("wsinfer", failed="OSError: no |\nroom"),
    ]
    lines = peers.table(BENCH, reports).splitlines()
    assert cells(lines[2])[:6] == ["hepamap, dense", "", "900", "3.0", "300.0", "1.00"]
    assert cells(lines[3])[:6] == ["hepamap, patch", "", "900", "6.0", "150.0", "2.00"]
    assert cells(lines[4]) == ["tiatoolbox 2.1.3", "8 / 0", "1000", "10.0", "100.0", "3.00", "2.0e-07", "1.2e-02"]
    assert cells(lines[5])[:2] == ["wsinfer", "not measured: OSError: no \\| room"]
    assert {line.replace("\\|", "").count("|") for line in lines} == {9}


def test_it_runs_where_hepamap_is_not() -> None:
    tree = ast.parse(Path(peers.__file__).read_text(encoding="utf-8"))
    imported = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    imported += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert "torch" in imported
    assert [name for name in imported if name.startswith("hepamap")] == []


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """A slide and answers that no peer gets as far as to look at."""
    np.savez(tmp_path / "answers.npz", probabilities=np.zeros(1))
    (tmp_path / "a.svs").touch()
    (tmp_path / "bench.json").write_text(json.dumps(BENCH), encoding="utf-8")
    return [str(tmp_path / "a.svs"), "--answers", str(tmp_path / "answers.npz")]


def test_a_peer_that_is_not_there_does_not_stop_the_others(
    files: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """TIAToolbox has no environment, WSInfer one whose process dies."""
    python = tmp_path / "wsinfer" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nexit 7\n", encoding="utf-8")
    python.chmod(0o755)
    status = peers.main([*files, "--bench", str(tmp_path / "bench.json"), "--environments", str(tmp_path)])
    lines = capfd.readouterr().out.splitlines()
    assert status == 1
    assert lines[0].startswith("hcc-5x@1.0.0 on a.svs")
    assert cells(lines[-2])[:2] == ["tiatoolbox", f"not measured: not installed: there is no {tmp_path}/tiatoolbox/bin/python"]
    assert cells(lines[-1])[:2] == ["wsinfer", "not measured: its process ended with 7"]


def test_a_peer_that_cannot_be_imported_says_what_is_missing(files: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    """The process is real, and has everything but the peer."""
    arguments = [*files, "--threads", "1", "--setting", "8x0", "4x1"]
    (report,) = peers.measure_apart("wsinfer", Path(sys.executable), arguments)
    assert report.failed is not None
    assert report.failed.startswith("ModuleNotFoundError: No module named")


def answers_for(probabilities: list[float]) -> dict[str, Any]:
    corners = np.array([(16, 0), (32, 0), (-16, 48), (64, 64)])
    return {"corners_m": corners, "sample": np.array([0, 1, 3]), "probabilities": np.array(probabilities, np.float32)}


def install(monkeypatch: pytest.MonkeyPatch, same: list[float], run: Callable[[Setting, Path], Callable[[], Own]]) -> list[int]:
    """A peer that goes by the name of a package that is here; torch cannot be. Returns where its threads will be noted."""
    threads: list[int] = []
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(set_num_threads=threads.append))
    monkeypatch.setattr(peers, "PEERS", {"numpy": lambda slide, answers, folder: Loaded(np.array(same), run)})
    return threads


def test_each_setting_is_a_run_of_its_own_and_a_failure_keeps_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(setting: Setting, out: Path) -> Callable[[], Own]:
        assert list(out.iterdir()) == []
        (out / "result").touch()
        if setting.readers:
            raise MemoryError("too much")
        return lambda: {(16, 0): 0.5, (64, 64): 0.8, (0, 0): 0.1}

    threads = install(monkeypatch, [0.4, 0.2, 0.9], run)
    settings = [Setting(8, 0), Setting(4, 0), Setting(4, 2)]
    first, second, third = peers.measure("numpy", Path("a.svs"), answers_for([0.4, 0.2, 0.9005]), settings, 3)
    assert threads == [3]
    assert (first.program, first.setting, first.patches) == (f"numpy {np.__version__}", "8 / 0", 3)
    assert first.same_pixels == pytest.approx(0.0005 / 0.9005, rel=1e-3)
    assert first.own_pixels == pytest.approx(0.10025, rel=1e-3)  # of 0.1 and 0.1005; (32, 0) was not looked at
    assert (second.setting, second.failed) == ("4 / 0", None)
    assert third.failed == "MemoryError: too much"


@pytest.mark.parametrize(
    ("last", "expected", "told"), [(0.902, 0.9, "0.22 %"), (3e-9, 1e-9, "2e+02 %"), (float("nan"), 0.9, "nan %")]
)
def test_another_network_is_not_measured(monkeypatch: pytest.MonkeyPatch, last: float, expected: float, told: str) -> None:
    def run(setting: Setting, out: Path) -> Callable[[], Own]:
        raise AssertionError("it was run")

    install(monkeypatch, [0.4, 0.2, last], run)
    (report,) = peers.measure("numpy", Path("a.svs"), answers_for([0.4, 0.2, expected]), [Setting(8, 0)], 1)
    assert report.failed is not None
    assert report.failed.endswith(f"its probabilities differ from hepamap's by {told}")


def test_nothing_in_common_is_no_difference() -> None:
    assert peers.own_apart({(0, 0): 0.5}, answers_for([0.4, 0.2, 0.9])) is None


def test_the_mask_has_a_pixel_for_each_cell_with_tissue() -> None:
    answers = {
        "stride": np.array(16),
        "patch": np.array(64),
        "scale": np.array([4.0, 2.0]),
        "size_l0": np.array([400, 260]),  # 100 × 130 model px: 6.25 × 8.125 cells
        "corners_m": np.array([(0, 0), (48, 16), (-16, 96), (-48, 0), (80, 0)]),
    }
    expected = np.zeros((9, 7), np.uint8)
    expected[2, 2] = expected[3, 5] = expected[8, 1] = 1  # the last two patches have their middle beside the slide
    assert np.array_equal(peers.tissue_mask(answers), expected)


def test_settings_are_read() -> None:
    assert Setting.parse("32x2") == Setting(32, 2)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        *((["--setting", wrong], f"'{wrong}' is none; give") for wrong in ("32", "0x1", "8x-1", "ax1", "8x1x1")),
        (["--bench", "none.json"], "there is no none.json"),
        ([], "give either --bench, or --only and --out"),
        (["--only", "wsinfer"], "give either --bench, or --only and --out"),
    ],
)
def test_bad_arguments_are_named(files: list[str], more: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        peers.main([*files, *more])
    assert message in capsys.readouterr().err
