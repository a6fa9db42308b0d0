import json
import platform
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from hepamap.benchmark import BenchmarkReport, ModeReport, markdown, rates, run_benchmark
from hepamap.benchmark.counting import CountingDetector, PeakMemory
from hepamap.benchmark.memory import BenchmarkFailedError, measure_memory, write_tissue_slide
from hepamap.benchmark.report import STAGES
from hepamap.cli.app import app
from hepamap.errors import RegionEmptyError, StrideInvalidError
from hepamap.geometry import Region, Size
from hepamap.model_pack import ModelPack, load_pack, rewrite_manifest
from hepamap.networks import NetworkInvalidError, build_network
from hepamap.predictor import LaneFeed, Predictor
from hepamap.results import write_result
from hepamap.slide import Slide
from tests.conftest import WriteSlide
from tests.packs import write_network_pack

SLOW_S = 0.3
BLOCK = 64 * 1024


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> ModelPack:
    return write_network_pack(tmp_path_factory.mktemp("models"), "tiny-5x")


def test_operations_of_vgg16_by_hand() -> None:
    # 2 · 9 · incoming · outgoing for each output, and a quarter of the outputs after each pooling.
    first, second, third = 3 * 64 + 64 * 64, 64 * 128 + 128 * 128, 128 * 256 + 2 * 256 * 256
    fourth, fifth = 256 * 512 + 2 * 512 * 512, 3 * 512 * 512
    expected = 18 * (first + second / 4 + third / 16 + fourth / 64 + fifth / 256)
    assert expected == 611_712
    assert rates.operations_per_pixel(build_network("VGG16DrV2", "GAP", 64)) == expected


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates are measured on next to nothing, and networks take small pieces."""
    monkeypatch.setattr(rates, "_AT_LEAST_S", 0.0)
    monkeypatch.setattr(rates, "_AT_LEAST_RUNS", 1)
    monkeypatch.setattr(rates, "_TURNS", 1)
    monkeypatch.setattr(rates, "_CONVOLUTION", (1, 16, 16, 8))
    monkeypatch.setattr(rates, "_MATRIX", 64)
    monkeypatch.setattr(Predictor, "lane_positions", (13, 29, 45))
    monkeypatch.setattr(Predictor, "batch_size", 8)
    monkeypatch.setattr(Predictor, "strip_rows_m", lambda *_: 64)


@pytest.fixture
def tissue(write_slide: WriteSlide) -> Path:
    return write_slide(np.random.default_rng(1).integers(60, 180, (176, 160, 3), np.uint8), 1.84)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Widths of the lanes that networks are asked for."""
    found: list[int] = []
    plain = Predictor.open_lane

    def noted(self: Predictor, positions: int) -> LaneFeed:
        found.append(positions)
        return plain(self, positions)

    monkeypatch.setattr(Predictor, "open_lane", noted)
    return found


@pytest.fixture
def slow_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*given: Any, **named: Any) -> None:
        time.sleep(SLOW_S)
        write_result(*given, **named)

    monkeypatch.setattr("hepamap.detection.run.write_result", slow)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any) -> None:
        raise AssertionError("a network was loaded")

    monkeypatch.setattr(Predictor, "load", refuse)


@pytest.mark.usefixtures("quick", "slow_writing")
def test_all_ways_on_one_slide(tissue: Path, pack: ModelPack, opened: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hepamap.predictor.backend.has_unused_gpu", lambda *_: True)
    manifest = (pack.folder / "model.json").read_bytes()
    report = run_benchmark(tissue, pack, precision="float32", loop_patches=3)
    loop, patch, dense = report.modes
    assert patch.patches == dense.patches == loop.patches == pytest.approx(report.slide["tissue_mm2"] / 0.02944**2)
    assert report.ratios["dense over patch mode, whole run"] == patch.seconds / dense.seconds
    assert report.ratios["dense over the authors' loop, whole run"] == loop.seconds / dense.seconds
    assert report.ratios["network's share of a dense run"] == dense.network_share
    assert len(report.dense_seconds) == 3
    assert sorted(report.dense_seconds)[1] == dense.seconds
    for mode in report.modes:
        assert 0 < mode.network_share <= 1
        assert mode.peak_memory_mb > 50
        assert sum(mode.seconds_by_stage.values()) == pytest.approx(mode.seconds)
        assert min(mode.seconds_by_stage.values()) >= 0
    for mode in (patch, dense):
        assert mode.seconds_by_stage["writing"] > SLOW_S
        assert set(mode.seconds_by_stage) == set(STAGES)
    assert set(opened) == {13}  # of all widths that there are, the map needs the narrowest
    assert report.warnings[0]["code"] == "gpu_not_used"
    assert len(report.warnings) == 1
    rows = [line for line in markdown(report).splitlines() if line.startswith("|")]
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| authors' loop (3 patches, scaled)", "| patch", "| dense"]
    assert len({row.count("|") for row in rows}) == 1
    assert [mode["name"] for mode in report.to_json()["modes"]] == [mode.name for mode in report.modes]
    assert report.to_json()["warnings"] == report.warnings
    assert (pack.folder / "model.json").read_bytes() == manifest  # it was never validated in dense mode, and is not now


def test_the_table_shows_where_the_time_went() -> None:
    shares = dict(zip(STAGES, (1.0, 2.0, 80.0, 4.0, 3.0, 2.5, 7.5), strict=True))
    dense = ModeReport("dense", 900, 100.0, shares, {}, 0.8, 0.9, 1234.4)
    loop = ModeReport("loop", 900, 400.0, {"waiting": 100.0, "network": 300.0}, {}, 0.75, 0.1, 999.6)
    machine = {"device": "cpu", "cpus": 2, "precision": "float32", "convolution": 1.0, "matrix_product": 1.0}
    report = BenchmarkReport(machine, "m", {"name": "s", "tissue_mm2": 1.0, "stride": 16}, (loop, dense), {}, {})
    titles, _, *rows = [line.strip("| ").split(" | ") for line in markdown(report).splitlines() if line.startswith("|")]
    first, second = (dict(zip(titles, row, strict=True)) for row in rows)
    assert [second[title] for title in STAGES.values()] == ["1.0 %", "2.0 %", "80.0 %", "4.0 %", "3.0 %", "2.5 %", "7.5 %"]
    assert [first[title] for title in STAGES.values()] == ["–", "25.0 %", "75.0 %", "–", "–", "–", "–"]
    assert (first["peak memory (MB)"], second["peak memory (MB)"]) == ("1000", "1234")


def test_the_network_alone_is_compared_turn_by_turn(pack: ModelPack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that gets slower and slower: dense is ten times as fast in each turn but one, whatever the medians say."""
    predictor = Predictor.load(pack, "float32")
    monkeypatch.setattr(Predictor, "batch_size", 8)
    monkeypatch.setattr(Predictor, "strip_rows_m", lambda *_: 64)
    patches, answers, pixels = 4 * 8, 4 * 4 * 29, 4 * 64 * 692
    patch_s = [1.0, 2.0, 4.0]
    ratios = [10.0, 30.0, 10.0]
    lane_s = [of_patch * answers / patches / ratio for of_patch, ratio in zip(patch_s, ratios, strict=True)]
    monkeypatch.setattr(rates, "seconds_in_turns", lambda *_: list(zip(patch_s, lane_s, strict=True)))
    alone = rates.network_alone(predictor, 29, 16)
    assert alone.dense_over_patch == pytest.approx(10.0)
    assert alone.patch == patches / 2.0
    assert alone.dense == pytest.approx(answers / sorted(lane_s)[1])
    assert alone.fed_per_s == pytest.approx(pixels / sorted(lane_s)[1])
    assert rates.network_alone(predictor, 29, 32).dense == pytest.approx(alone.dense / 4)  # a fourth of the answers count


def test_turns_alternate() -> None:
    done: list[str] = []
    assert len(rates.seconds_in_turns(lambda: done.append("a"), lambda: done.append("b"))) == 7
    assert done == ["a", "b"] * 8  # the first time for what is built then


@pytest.mark.usefixtures("no_network")
def test_glass_is_refused_before_anything_is_measured(write_slide: WriteSlide, pack: ModelPack) -> None:
    with pytest.raises(RegionEmptyError, match="no tissue"):
        run_benchmark(write_slide(np.full((600, 600, 3), 244, np.uint8), 1.84), pack)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(("stride_m", "message"), [(17, "17 px is none that this model allows"), (24, "cannot step by 24 px")])
def test_a_stride_is_checked_before_anything_is_measured(
    tissue: Path, pack: ModelPack, tmp_path: Path, stride_m: int, message: str
) -> None:
    """The model allows 24, which dense mode cannot do."""
    copy = tmp_path / "tiny-5x" / "1.0.0"
    shutil.copytree(pack.folder, copy)
    own = rewrite_manifest(load_pack(copy), strides=(16, 24))
    with pytest.raises(StrideInvalidError, match=message):
        run_benchmark(tissue, own, stride_m=stride_m)


@pytest.mark.usefixtures("no_network")
def test_a_network_without_dense_mode_is_refused(tissue: Path, pack: ModelPack, tmp_path: Path) -> None:
    copy = tmp_path / "tiny-5x" / "1.0.0"
    shutil.copytree(pack.folder, copy)
    own = rewrite_manifest(load_pack(copy), network={"backbone": "VGG16DrV2", "head": "FC512"})
    with pytest.raises(NetworkInvalidError, match="FC512"):
        run_benchmark(tissue, own)


def test_the_command_says_what_went_otherwise(tissue: Path, pack: ModelPack, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = {"device": "cpu", "cpus": 2, "precision": "float32", "convolution": 1.0, "matrix_product": 1.0}
    about = {"name": "s", "tissue_mm2": 1.0, "stride": 16}
    report = BenchmarkReport(machine, "m", about, (), {}, {}, warnings=({"code": "gpu_failed", "message": "It ran on the CPU."},))
    monkeypatch.setattr("hepamap.benchmark.run_benchmark", lambda *_, **__: report)
    command = ["bench", str(tissue), "--model", "tiny-5x", "--models-dir", str(pack.folder.parents[1]), "--json"]
    answer = CliRunner().invoke(app, command)
    assert answer.exit_code == 0, answer.output
    assert "warning: It ran on the CPU. [gpu_failed]" in answer.stderr
    assert json.loads(answer.stdout)["warnings"] == [{"code": "gpu_failed", "message": "It ran on the CPU."}]


def test_what_passes_through_a_network_is_counted(pack: ModelPack) -> None:
    detector = CountingDetector(pack.folder.parents[1], "float32")
    network = detector.predictor(pack)
    plain = detector.loaded(pack)
    assert (network.policy, network.batch_size, network.warnings) == (plain.policy, plain.batch_size, plain.warnings)
    patches = np.random.default_rng(3).integers(0, 256, (3, 64, 64, 3), np.uint8)
    assert np.array_equal(network.predict(patches), plain.predict(patches))
    assert detector.count.pixels == 3 * 64 * 64
    lane = network.open_lane(29)
    lane.feed(np.zeros((lane.rows_m + 16, 692, 3), np.uint8))
    answers = lane.finish()
    # A lane ends with the rows that are left where a graph takes strips of any height, else with a strip that is filled up.
    last_rows_m = 16 * len(answers)
    assert last_rows_m in (16, lane.rows_m)
    assert detector.count.pixels == 3 * 64 * 64 + (lane.rows_m + last_rows_m) * 692
    assert detector.count.seconds > 0


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library may keep what was freed")
def test_what_was_freed_before_does_not_count() -> None:
    """Blocks that the C library keeps after they were freed, for one beyond them is held."""
    with PeakMemory() as first:
        blocks = [bytearray(BLOCK) for _ in range(4096)]
        time.sleep(0.1)
    held = blocks[-1]
    del blocks
    with PeakMemory() as second:
        few = [bytearray(BLOCK) for _ in range(256)]
        time.sleep(0.1)
    assert len(held) == len(few[0])
    assert first.peak_mb - second.peak_mb > 150  # of 256 - 16 MB


def test_the_slide_for_memory_is_tissue_from_edge_to_edge(tmp_path: Path) -> None:
    write_tissue_slide(tmp_path / "slide.tif", Size(1500, 900))
    with Slide.open(tmp_path / "slide.tif") as slide:
        assert slide.size_l0 == Size(1500, 900)
        pixels = slide.read_region(Region(0, 0, 1500, 900), 1.0)
    means = pixels.astype(float).mean(axis=2)
    assert (means > 200).mean() < 0.5
    quarters = [half for rows in np.array_split(means, 2) for half in np.array_split(rows, 2, axis=1)]
    assert all((quarter > 200).mean() < 0.5 for quarter in quarters)


def test_memory_of_one_run(tmp_path: Path, pack: ModelPack) -> None:
    models = pack.folder.parents[1]
    (report,) = measure_memory("tiny-5x", models, mode="patch", sizes=(Size(600, 600),), tell=lambda text: None)
    assert report.size == Size(600, 600)
    assert report.peak_mb > 100
    with pytest.raises(BenchmarkFailedError):
        measure_memory("no-such", models, sizes=(Size(600, 600),), tell=lambda text: None)
