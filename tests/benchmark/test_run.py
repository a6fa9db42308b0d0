from pathlib import Path

import numpy as np
import pytest

from hepamap.benchmark import markdown, rates, run_benchmark
from hepamap.benchmark.memory import BenchmarkFailedError, measure_memory, write_tissue_slide
from hepamap.geometry import Region, Size
from hepamap.model_pack import ModelPack
from hepamap.networks import build_network
from hepamap.predictor import Predictor
from hepamap.slide import Slide
from tests.conftest import WriteSlide
from tests.packs import write_network_pack


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


def test_all_ways_on_one_slide(write_slide: WriteSlide, pack: ModelPack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "_AT_LEAST_S", 0.0)
    monkeypatch.setattr(rates, "_CONVOLUTION", (1, 16, 16, 8))
    monkeypatch.setattr(rates, "_MATRIX", 64)
    monkeypatch.setattr(Predictor, "lane_positions", (29,))
    tissue = np.random.default_rng(1).integers(60, 180, (512, 512, 3), np.uint8)
    with Slide.open(write_slide(tissue, 1.84)) as slide:
        report = run_benchmark(slide, pack, precision="float32", loop_patches=3)
    loop, patch, dense = report.modes
    assert patch.patches == dense.patches == loop.patches == pytest.approx(report.slide["tissue_mm2"] / 0.02944**2)
    assert report.ratios["dense over patch mode, whole run"] == patch.seconds / dense.seconds
    assert report.ratios["dense over the authors' loop, whole run"] == loop.seconds / dense.seconds
    assert report.ratios["network's share of a dense run"] == dense.network_share
    for mode in report.modes:
        assert 0 < mode.network_share <= 1
        assert mode.peak_memory_mb > 50
    rows = [line for line in markdown(report).splitlines() if line.startswith("|")]
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| authors' loop (3 patches, scaled)", "| patch", "| dense"]
    assert [mode["name"] for mode in report.to_json()["modes"]] == [mode.name for mode in report.modes]


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
