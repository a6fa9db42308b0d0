from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from hepamap.errors import (
    HepamapError,
    ModelChangedError,
    OutputExistsError,
    ParameterError,
    ResolutionTooCoarseError,
    StrideInvalidError,
)
from hepamap.model_pack import InputSpec, ModelPack, NetworkSpec, load_pack, rewrite_manifest, write_pack
from hepamap.predictor import Predictor
from hepamap.training.build import DatasetSpec, build_dataset
from hepamap.training.class_map import DEFAULT_CLASSES
from hepamap.training.errors import AnnotationOutsideError, ClassesUnknownError, DatasetInvalidError, SlideInTwoSplitsError
from hepamap.training.evaluation.choice import choose
from hepamap.training.evaluation.errors import NothingMeasuredError, OneClassError, SplitEmptyError
from hepamap.training.evaluation.plan import EvaluationSpec, plan_runs
from hepamap.training.evaluation.run import evaluate
from hepamap.training.evaluation.scores import METRICS
from hepamap.training.evaluation.sheet import overlay_sheet, worst_first
from hepamap.training.evaluation.writing import report_json, write_files, write_into_packs
from tests.packs import manifest_body
from tests.training.conftest import box, feature, tumour_and_liver
from tests.training.evaluation.conftest import GivingWayDetector, RedDetector, weightless_pack


def spec(table: Path | None, **changes: Any) -> EvaluationSpec:
    return replace(EvaluationSpec(models=("tiny-5x",), table=table), **changes)


def refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is no JSON")


def test_a_perfect_network_on_toy_slides(cohort: Path, detector: RedDetector, tmp_path: Path) -> None:
    found = evaluate(spec(cohort, choose_on="val", without_overlap=True, thresholds=(0.95,)), tmp_path / "out", detector)
    assert [item.run.name for item in found.runs] == ["tiny-5x@1.0.0-patch-16", "tiny-5x@1.0.0-patch-64"]
    overlapping = found.runs[0]
    youden = overlapping.means["youden"]
    assert youden["auc"] is not None
    assert youden["auc"].value > 0.98
    assert youden["auc"].low is None  # one patient
    assert [rule.title for rule in overlapping.rules] == [
        "Youden, per slide",
        "0.5 (default, sensitive, balanced)",
        "0.901 (specific)",  # patches that are half red are the network's only mistakes, and too many for 99 %
        "0.95",
    ]
    above = overlapping.means["0.95"]
    assert above["sensitivity"] is not None
    assert above["sensitivity"].value == 0.0  # the network never says more than 0.9
    assert above["precision"] is None
    assert above["iou"] is not None
    assert above["iou"].value == 0.0
    at_half = overlapping.means["0.5"]["iou"]
    assert at_half is not None
    assert at_half.value > 0.9


def test_everything_is_written(cohort: Path, detector: RedDetector, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = evaluate(spec(cohort, choose_on="val"), out, detector)
    names = {path.name for path in write_files(found, out)}
    assert names == {
        *("report.json", "tables.md", "table1.csv", "slides.csv", "roc.png", "boxes-youden.png", "boxes-default.png"),
        *("reliability.png", "operating-points.png", "overlays-tiny-5x@1.0.0-patch-16.png"),
    }
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in names if name.endswith(".png"))
    report = json.loads((out / "report.json").read_text(), parse_constant=refuse)
    (run,) = report["runs"]
    assert set(run["thresholds"][0]["mean_over_slides"]) == set(METRICS)
    assert run["operating_points"]["chosen_on"]["split"] == "val"
    assert (out / run["slides"][0]["map"] / "result.json").exists()
    assert str(tmp_path) not in json.dumps(report)
    rows = (out / "table1.csv").read_text().splitlines()
    assert len(rows) == 1 + len(run["thresholds"])
    assert len({row.count(",") for row in rows}) == 1
    tables = [line for line in (out / "tables.md").read_text().splitlines() if line.startswith("|")]
    assert any("Youden, per slide" in line for line in tables)


def test_what_is_there_is_not_computed_again(cohort: Path, detector: RedDetector, tmp_path: Path) -> None:
    first = evaluate(spec(cohort), tmp_path / "out", detector)
    asked = detector.network.asked
    assert asked > 0
    again = evaluate(spec(cohort), tmp_path / "out", detector)
    assert detector.network.asked == asked
    assert again.markdown() == first.markdown()
    evaluate(spec(cohort, strides_m=(64,)), tmp_path / "out", detector)
    assert detector.network.asked > asked  # another question


KILLED_IN_THE_SECOND_SLIDE = """
import os, signal, sys
from pathlib import Path
from tests.training.evaluation.conftest import RedDetector
from hepamap.training.evaluation.plan import EvaluationSpec
from hepamap.training.evaluation.run import evaluate
table, out, models = map(Path, sys.argv[1:])
detector = RedDetector(models)
plain = detector.network.predict_on_batch
def once_there_is_a_map(batch):
    if any((out / "maps").glob("s0-*/result.json")):
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(batch)
detector.network.predict_on_batch = once_there_is_a_map
evaluate(EvaluationSpec(models=("tiny-5x",), table=table, split="train"), out, detector)
"""


def test_a_killed_evaluation_goes_on(cohort: Path, detector: RedDetector, tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = [sys.executable, "-c", KILLED_IN_THE_SECOND_SLIDE, str(cohort), str(out), str(detector.models_dir)]
    killed = subprocess.run(script, cwd=Path(__file__).parents[3], check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (kept,) = (out / "maps").glob("s0-*/result.json")
    written = kept.stat().st_mtime_ns
    found = evaluate(spec(cohort, split="train"), out, detector)
    assert kept.stat().st_mtime_ns == written
    alone = RedDetector(detector.models_dir)
    whole = evaluate(spec(cohort, split="train"), tmp_path / "other", alone)
    assert detector.network.asked == alone.network.asked / 2  # of two equal slides
    assert found.markdown() == whole.markdown()


def test_a_damaged_map_is_computed_again(cohort: Path, detector: RedDetector, tmp_path: Path) -> None:
    first = evaluate(spec(cohort), tmp_path / "out", detector)
    (values,) = (tmp_path / "out" / "maps").glob("*/probability-map.npy")
    values.write_bytes(values.read_bytes()[:200])
    assert evaluate(spec(cohort), tmp_path / "out", detector).markdown() == first.markdown()


def test_the_pack_learns_what_was_measured(cohort: Path, detector: RedDetector, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "tiny-5x" / "1.0.0"
    weights = (folder / "weights.safetensors").read_bytes()
    found = evaluate(spec(cohort, choose_on="val", write=True, without_overlap=True), tmp_path / "out", detector)
    (written,) = write_into_packs(found)
    manifest = load_pack(folder).manifest
    assert manifest == written.manifest
    assert (folder / "weights.safetensors").read_bytes() == weights
    assert [point.name for point in manifest.operating_points] == ["sensitive", "balanced", "specific"]
    assert manifest.calibration is not None
    assert manifest.calibration.expected_error == pytest.approx(0.1, abs=0.02)  # says 0.9 and 0.1 of what is sure
    assert manifest.calibration.temperature < 1
    assert manifest.evaluation["slides"]["stride"] == 16
    assert "coincide" in manifest.evaluation["operating_points_remarks"][0]
    card = (folder / "MODEL_CARD.md").read_text()
    assert "My own words." in card
    assert "## Contact\n\nMe." in card
    assert "old figures" not in card
    assert "| Youden, per slide |" in card
    assert "Chosen on" in card
    write_into_packs(found)
    assert (folder / "MODEL_CARD.md").read_text() == card


def test_patches_of_a_data_set(cohort: Path, detector: RedDetector, tmp_path: Path) -> None:
    per_class = {"train": 4, "val": 4, "test": 12}
    build_dataset(cohort, tmp_path / "patches-5x", DatasetSpec(mpp=1.84, patch_m=64, per_class=per_class))
    asked = spec(None, datasets=(tmp_path / "patches-5x",))
    found = evaluate(asked, tmp_path / "out", detector)
    (patches,) = found.patches
    assert (len(patches.truth), int(patches.truth.sum()), patches.slides) == (24, 12, 1)
    assert patches.auc is not None
    assert patches.auc.value == 1.0
    count = detector.network.asked
    assert evaluate(asked, tmp_path / "out", detector).patches[0].to_json() == patches.to_json()
    assert detector.network.asked == count
    assert {path.name for path in write_files(found, tmp_path / "out")} == {"report.json", "tables.md", "roc.png"}
    weightless_pack(tmp_path / "models", "other-5x", input=InputSpec(mpp=1.0, patch=64))
    with pytest.raises(DatasetInvalidError, match="no model takes them"):
        evaluate(replace(asked, models=("other-5x",)), tmp_path / "out", detector)


def test_what_the_network_had_to_say_is_reported(cohort: Path, detector: RedDetector, tmp_path: Path) -> None:
    """Also by an evaluation that finds maps and answers on the disk."""
    build_dataset(cohort, tmp_path / "patches-5x", DatasetSpec(mpp=1.84, patch_m=64, per_class={"test": 4}))
    asked = spec(cohort, datasets=(tmp_path / "patches-5x",))
    said = {"code": "gpu_failed", "message": "It ran on the CPU."}
    for by in (GivingWayDetector(detector.models_dir), detector):
        found = evaluate(asked, tmp_path / "out", by)
        report = report_json(found)
        assert said in report["runs"][0]["slides"][0]["warnings"]
        assert "tiny-5x@1.0.0-patch-16: It ran on the CPU. [gpu_failed] (s3)" in report["runs"][0]["remarks"]
        assert report["patches"][0]["warnings"] == [said]
        assert "- tiny-5x@1.0.0, patches: It ran on the CPU. [gpu_failed]" in found.markdown()
    assert detector.network.asked == 0
    fresh = report_json(evaluate(asked, tmp_path / "other", detector))
    assert said not in fresh["runs"][0]["slides"][0]["warnings"]
    assert fresh["patches"][0]["warnings"] == []


def test_patches_are_no_question_for_a_network_of_pixels(cohort: Path, detector: RedDetector, tmp_path: Path) -> None:
    """It is refused where nothing else could be asked, and left out beside a network that answers for patches."""
    build_dataset(cohort, tmp_path / "patches-5x", DatasetSpec(mpp=1.84, patch_m=64, per_class={"test": 4}))
    network = NetworkSpec(kind="segmentation", backbone="UNet", head="PIXELS")
    weightless_pack(tmp_path / "models", "unet-5x", network=network, modes=("segment",), default_mode="segment")
    asked = spec(None, models=("unet-5x",), datasets=(tmp_path / "patches-5x",))
    with pytest.raises(ParameterError, match=r"unet-5x@1\.0\.0 answers for pixels") as caught:
        evaluate(asked, tmp_path / "out", detector)
    assert "without --dataset" in caught.value.cure
    assert detector.network.asked == 0
    (patches,) = evaluate(replace(asked, models=("tiny-5x", "unet-5x")), tmp_path / "out", detector).patches
    assert patches.pack.manifest.id == "tiny-5x"


def test_a_split_that_one_of_the_data_sets_lacks_is_known_at_once(cohort: Path, detector: RedDetector, tmp_path: Path) -> None:
    build_dataset(cohort, tmp_path / "five", DatasetSpec(mpp=1.84, patch_m=64, per_class={"test": 4}))
    build_dataset(cohort, tmp_path / "ten", DatasetSpec(mpp=1.84, patch_m=128, per_class={"train": 4}))
    weightless_pack(tmp_path / "models", "other", input=InputSpec(mpp=1.84, patch=128))
    asked = spec(None, models=("tiny-5x", "other"), datasets=(tmp_path / "five", tmp_path / "ten"))
    with pytest.raises(SplitEmptyError, match="ten have no patch in the split “test”"):
        evaluate(asked, tmp_path / "out", detector)
    assert detector.network.asked == 0


def test_choosing_takes_a_table(detector: RedDetector, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="no table of slides is given"):
        evaluate(spec(None, choose_on="val"), tmp_path / "out", detector)


class ReplacingDetector(RedDetector):
    """While it looks at a slide, somebody puts other weights into the pack."""

    def predictor(self, pack: ModelPack) -> Predictor:
        write_pack(pack.folder, manifest_body("tiny-5x"), {"a/kernel": np.ones(1)}, "")
        return super().predictor(pack)


def test_a_model_that_is_replaced_meanwhile_is_not_mixed_into_the_figures(
    cohort: Path, detector: RedDetector, tmp_path: Path
) -> None:
    with pytest.raises(ModelChangedError, match="replaced since"):
        evaluate(spec(cohort, split="train"), tmp_path / "out", ReplacingDetector(detector.models_dir))
    found = evaluate(spec(cohort, choose_on="val", write=True), tmp_path / "out", detector)
    replaced = write_pack(found.runs[0].run.pack.folder, manifest_body("tiny-5x"), {"a/kernel": np.zeros(2)}, "")
    with pytest.raises(ModelChangedError):
        write_into_packs(found)
    assert load_pack(replaced.folder).manifest == replaced.manifest


def test_what_others_wrote_into_the_pack_meanwhile_stays(cohort: Path, detector: RedDetector, tmp_path: Path) -> None:
    found = evaluate(spec(cohort, choose_on="val", write=True), tmp_path / "out", detector)
    pack = load_pack(found.runs[0].run.pack.folder)
    rewrite_manifest(pack, evaluation={**pack.manifest.evaluation, "somebody": "was here"}, licence="Another")
    (written,) = write_into_packs(found)
    assert written.manifest.evaluation["somebody"] == "was here"
    assert written.manifest.evaluation["slides"]["slides"] == 1
    assert written.manifest.licence == "Another"


def redrawn(cohort: Path, folder: Path, features: list[Any], split: str = "test", unannotated: str = "ignore") -> Path:
    """A table of the last toy slide with other annotations."""
    folder.mkdir()
    (folder / "drawn.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    table = folder / "table.csv"
    table.write_text(
        f"slide,annotations,group,split,unannotated\n{cohort.parent / 's3.tif'},drawn.geojson,p,{split},{unannotated}\n"
    )
    return table


def test_one_class_only_is_said_and_is_no_number(cohort: Path, detector: RedDetector, tmp_path: Path) -> None:
    liver = [feature([box(320, 0, 640, 768)], classification={"name": "Non-tumor"})]
    table = redrawn(cohort, tmp_path / "liver", liver)
    found = evaluate(spec(table), tmp_path / "out", detector)
    (run,) = found.runs
    assert set(run.means["youden"].values()) == {None}
    assert run.means["0.5"]["auc"] is None
    assert run.means["0.5"]["sensitivity"] is None
    assert run.means["0.5"]["iou"] is None
    specificity = run.means["0.5"]["specificity"]
    assert specificity is not None
    assert specificity.value > 0.95
    assert "one class only" in run.remarks[0]
    write_files(found, tmp_path / "out")
    json.loads((tmp_path / "out" / "report.json").read_text(), parse_constant=refuse)
    table.write_text(table.read_text().replace(",test,", ",val,") + f"{cohort.parent / 's2.tif'},drawn.geojson,q,test,ignore\n")
    kept = sorted((tmp_path / "out" / "maps").iterdir())
    with pytest.raises(OneClassError, match="Nothing is tumour on the slides of the split “val”"):
        evaluate(spec(table, choose_on="val"), tmp_path / "out", detector)
    assert sorted((tmp_path / "out" / "maps").iterdir()) == kept  # before hours are spent


def test_an_unknown_class_is_neither_and_is_said(cohort: Path, detector: RedDetector, tmp_path: Path) -> None:
    """Red tissue that was drawn as something unknown would be the network's false alarms, were it non-tumour."""
    drawn = [
        feature([box(0, 0, 160, 768)], classification={"name": "Tumor"}),
        feature([box(160, 0, 320, 768)], classification={"name": "HCC grade 2"}),
    ]
    table = redrawn(cohort, tmp_path / "drawn", drawn, unannotated="non_tumour")
    lacks: list[HepamapError] = []
    (run,) = evaluate(spec(table), tmp_path / "out", detector, warn=lacks.append).runs
    assert lacks == []
    fall_out = run.means["0.5"]["fall_out"]
    assert fall_out is not None
    assert fall_out.value < 0.05  # 160 of 480 columns would be a third
    assert any("s3: 1 annotations of class “HCC grade 2” were left out" in sentence for sentence in run.remarks)


def test_a_class_that_is_on_no_slide_is_said_before_the_maps(cohort: Path, detector: RedDetector, tmp_path: Path) -> None:
    drawn = [
        feature([box(0, 0, 320, 768)], classification={"name": "Tumor"}),
        feature([box(320, 0, 640, 768)], classification={"name": "Non-tumor"}),
    ]
    lacks: list[tuple[HepamapError, int]] = []

    def warn(lack: HepamapError) -> None:
        lacks.append((lack, detector.network.asked))

    table = redrawn(cohort, tmp_path / "misspelt", drawn)
    classes = DEFAULT_CLASSES.with_names(tumour=["Tumuor"])
    evaluate(spec(table, classes=classes), tmp_path / "out", detector, warn=warn)
    ((lack, asked_before),) = lacks
    assert asked_before == 0
    assert "Nothing is tumour on the slides of the split “test”" in lack.message
    assert "“Tumor”" in lack.message
    assert "--tumour-class" in lack.cure


def test_tumour_inside_of_a_non_tumour_outline_is_said(cohort: Path, detector: RedDetector, tmp_path: Path) -> None:
    drawn = [
        feature([box(0, 0, 100, 100)], classification={"name": "Tumor"}),
        feature([box(0, 0, 640, 768)], classification={"name": "Non-tumor"}),
    ]
    table = redrawn(cohort, tmp_path / "nested", drawn)
    lacks: list[HepamapError] = []
    (run,) = evaluate(spec(table), tmp_path / "out", detector, warn=lacks.append).runs
    assert any(f"s3: {10_000 * 1.84**2 / 1e6:.4g} mm² are drawn as both classes" in sentence for sentence in run.remarks)
    (lack,) = lacks
    assert "On 1 of them tumour and non-tumour are drawn over each other" in lack.message
    assert "Cut" in lack.cure


def test_annotations_on_glass_measure_nothing(cohort: Path, detector: RedDetector, tmp_path: Path) -> None:
    glass = [feature([box(700, 0, 768, 768)], classification={"name": "Tumor"})]
    table = redrawn(cohort, tmp_path / "glass", glass)
    (run,) = evaluate(spec(table), tmp_path / "out", detector).runs
    assert run.means["0.5"]["accuracy"] is None
    write_files(evaluate(spec(table), tmp_path / "out", detector), tmp_path / "out")
    text = table.read_text()
    table.write_text(text + f"{cohort.parent / 's2.tif'},{cohort.parent / 's2.geojson'},q,val,ignore\n")
    with pytest.raises(NothingMeasuredError, match="has both tissue and a label"):
        evaluate(spec(table, choose_on="val"), tmp_path / "out", detector)


@pytest.mark.parametrize(
    ("drawn", "error"),
    [
        (feature([box(5000, 0, 6000, 700)], classification={"name": "Tumor"}), AnnotationOutsideError),
        (feature([box(0, 0, 300, 700)], classification={"name": "Zona"}), ClassesUnknownError),
    ],
    ids=["outside", "unknown-class"],
)
def test_bad_annotations_are_refused_before_anything_is_computed(
    cohort: Path, detector: RedDetector, tmp_path: Path, drawn: Any, error: type[Exception]
) -> None:
    table = redrawn(cohort, tmp_path / "drawn", [drawn])
    with pytest.raises(error):
        evaluate(spec(table), tmp_path / "out", detector)
    assert detector.network.asked == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"modes": ("dense",)}, ParameterError, "has no mode 'dense'"),
        ({"strides_m": (17,)}, StrideInvalidError, "17"),
        ({"thresholds": (1.5,)}, ParameterError, "1.5"),
        ({"write": True, "choose_on": "test"}, ParameterError, "cannot choose thresholds"),
        ({"choose_on": "test"}, ParameterError, "cannot choose thresholds"),
        ({"write": True, "choose_on": "val", "strides_m": (64,)}, ParameterError, "default mode and stride"),
        ({"write": True}, ParameterError, "is not chosen"),
    ],
    ids=["mode", "stride", "threshold", "same-split", "same-split-unwritten", "not-default", "nothing-to-choose-on"],
)
def test_what_cannot_be_done_is_refused(
    detector: RedDetector, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        plan_runs(spec(Path("cohort.csv"), **changes), detector.models_dir)


def test_a_copy_cannot_choose_for_its_original(cohort: Path, detector: RedDetector, tmp_path: Path) -> None:
    table = redrawn(cohort, tmp_path / "drawn", tumour_and_liver()["features"])
    shutil.copy(cohort.parent / "s3.tif", tmp_path / "drawn" / "copy.tif")
    with table.open("a") as file:
        file.write("copy.tif,drawn.geojson,q,val,ignore\n")
    with pytest.raises(SlideInTwoSplitsError, match=r"s3\.tif \(test\) and copy\.tif \(val\)"):
        evaluate(spec(table, choose_on="val"), tmp_path / "out", detector)
    assert detector.network.asked == 0


def test_a_network_of_pixels_runs_in_its_one_mode(tmp_path: Path) -> None:
    weightless_pack(tmp_path, "toy", modes=("patch", "dense"))
    pixels = NetworkSpec(kind="segmentation", backbone="UNet", head="PIXELS")
    weightless_pack(tmp_path, "pixels", network=pixels, modes=("segment",), default_mode="segment")
    asked = spec(Path("cohort.csv"), models=("toy", "pixels"), modes=("dense",), without_overlap=True)
    runs = [(run.pack.manifest.id, run.mode, run.stride_m, run.overlap) for run in plan_runs(asked, tmp_path)]
    assert runs == [("toy", "dense", 16, 0.75), ("toy", "dense", 64, 0.0), ("pixels", "segment", 16, None)]


def test_a_slide_that_is_too_coarse_is_refused_at_once(cohort: Path, tmp_path: Path) -> None:
    weightless_pack(tmp_path / "models", "fine", input=InputSpec(mpp=0.2, patch=64))
    detector = RedDetector(tmp_path / "models")
    with pytest.raises(ResolutionTooCoarseError):
        evaluate(spec(cohort, models=("fine",)), tmp_path / "out", detector)
    assert not (tmp_path / "out").exists()


def test_an_empty_split_says_what_there_is(cohort: Path, detector: RedDetector, tmp_path: Path) -> None:
    table = redrawn(cohort, tmp_path / "drawn", [], split="train")
    with pytest.raises(SplitEmptyError, match=r"no slide of the split “test”; it has train \(1\)"):
        evaluate(spec(table), tmp_path / "out", detector)


def test_a_folder_of_somebody_else_is_left_alone(cohort: Path, detector: RedDetector, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("chapter 1")
    with pytest.raises(OutputExistsError, match="no evaluation"):
        evaluate(spec(cohort), tmp_path / "mine", detector)


def test_the_worst_slide_is_first(cohort: Path, detector: RedDetector, tmp_path: Path) -> None:
    (run,) = evaluate(spec(cohort, split="train"), tmp_path / "out", detector).runs
    good, other = run.outcomes
    bad = replace(other, counts={"0.5": replace(other.counts["0.5"], pixels_shared=0)})
    rule = run.rules[1]
    assert worst_first([good, bad], rule) == [bad, good]
    assert np.isclose(good.scores(rule)["iou"] or 0, other.scores(rule)["iou"] or 0, atol=0.02)


def refuse_slide(maps: Path, name: str) -> None:
    """As if the slide had not been evaluable when its map was made."""
    (path,) = maps.glob(f"{name}-*/result.json")
    warning = {"code": "not_h_and_e", "message": "This does not look like an H&E slide."}
    summary = {**json.loads(path.read_text()), "outcome": "not_evaluable", "warnings": [warning]}
    path.write_text(json.dumps(summary))


def test_a_slide_that_is_not_evaluable_has_no_part_in_any_figure(cohort: Path, detector: RedDetector, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (before,) = evaluate(spec(cohort, split="train"), out, detector).runs
    refuse_slide(out / "maps", "s0")
    found = evaluate(spec(cohort, split="train"), out, detector)
    (run,) = found.runs
    refused, kept = run.outcomes
    assert refused.slide.name == "s0"
    assert (refused.score.tumour_found_mm2, len(refused.truth), refused.counts) == (None, 0, {})
    for rule in run.rules:
        assert kept.scores(rule) == before.outcomes[1].scores(rule)
        assert set(refused.scores(rule).values()) == {None}
        means = {name: mean and mean.value for name, mean in run.means[rule.name].items()}
        assert means == pytest.approx(kept.scores(rule))
    assert worst_first([refused, kept], run.rules[1]) == [kept, refused]
    said = "tiny-5x@1.0.0-patch-16: 1 of 2 slides are not evaluable, and have no part in any figure: s0."
    assert said in found.markdown()
    assert "patches of one class only" not in found.markdown()
    report = report_json(found)["runs"][0]["slides"]
    assert [(one["evaluable"], one["contour_iou_at_default"] is None) for one in report] == [(False, True), (True, False)]
    write_files(found, out)
    rows = [line.split(",") for line in (out / "slides.csv").read_text().splitlines()]
    assert {(row[3], row[-1]) for row in rows} == {("slide", "evaluable"), ("s0", "no"), ("s1", "yes")}
    assert all(cell == "" for row in rows if row[3] == "s0" for cell in row[9:-1])


def test_the_sheet_has_no_contours_of_what_is_not_evaluable(
    cohort: Path, detector: RedDetector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hepamap.plausibility._MIN_HE_SHARE", 1.1)
    found = evaluate(spec(cohort), tmp_path / "out", detector)
    (run,) = found.runs
    assert write_files(found, tmp_path / "out")
    (axes,) = overlay_sheet(run, run.rules[1], tmp_path / "out" / "maps").axes
    assert axes.get_title().endswith("\nnot evaluable: no contours")
    assert "#FFD400" not in [line.get_color() for line in axes.lines]


def test_what_is_not_evaluable_chooses_nothing(cohort: Path, detector: RedDetector, tmp_path: Path) -> None:
    out, asked = tmp_path / "out", spec(cohort, split="train", choose_on="val", write=True)
    evaluate(asked, out, detector)
    refuse_slide(out / "maps", "s0")
    found = evaluate(asked, out, detector)
    (written,) = write_into_packs(found)
    slides = written.manifest.evaluation["slides"]
    assert (slides["slides"], slides["not_evaluable"]) == (1, 1)
    assert "Not evaluable, and left out: 1 more." in (written.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    choice = choose(found.runs[0].outcomes, "train")
    assert (choice.slides, choice.patches) == (1, len(found.runs[0].outcomes[1].truth))
    assert choice.remarks[-1] == "Not evaluable, and left out of the choice (train): s0."
