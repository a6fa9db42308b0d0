"""What an evaluation leaves: its report, tables and figures, and, where that is wanted, figures in the packs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hepamap import RESEARCH_USE_ONLY
from hepamap.errors import OutputNotWritableError
from hepamap.model_pack import ModelPack, reloaded, rewrite_manifest
from hepamap.provenance import software_json
from hepamap.training.evaluation import figures, tables
from hepamap.training.evaluation.patch_level import PatchOutcome
from hepamap.training.evaluation.plan import EvaluationSpec
from hepamap.training.evaluation.sheet import overlay_sheet
from hepamap.training.evaluation.slides import YOUDEN, Rule
from hepamap.training.evaluation.summary import RunSummary, run_json
from hepamap.training.model_card import rewrite_card

REPORT_NAME, TABLE_NAME, TABLE1_NAME, SLIDES_NAME = "report.json", "tables.md", "table1.csv", "slides.csv"
MAPS_FOLDER, ANSWERS_FOLDER = "maps", "patches"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that was measured."""

    spec: EvaluationSpec
    runs: tuple[RunSummary, ...]
    patches: tuple[PatchOutcome, ...]

    def markdown(self) -> str:
        """All tables."""
        return tables.markdown(self.runs, self.patches, self.spec.bootstrap)


def write_files(evaluation: Evaluation, out: Path) -> list[Path]:
    """Write report, tables and figures into a folder in which the maps are.

    Raises:
        OutputNotWritableError: no permission, or the disk is full.
    """
    texts = {
        REPORT_NAME: json.dumps(report_json(evaluation), indent=2, ensure_ascii=False) + "\n",
        TABLE_NAME: evaluation.markdown(),
    }
    if evaluation.runs:
        texts |= {TABLE1_NAME: tables.table1_csv(evaluation.runs), SLIDES_NAME: tables.slides_csv(evaluation.runs)}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (out / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputNotWritableError(
            f"The report cannot be written to {out.name} ({error.strerror}).", cure="Check permissions and free space."
        ) from error
    pictures = _pictures(evaluation, out)
    for name, figure in pictures.items():
        figures.save(figure, out / name)
    return [out / name for name in (*texts, *pictures)]


def report_json(evaluation: Evaluation) -> dict[str, Any]:
    """The whole evaluation."""
    spec = evaluation.spec
    return {
        "notice": RESEARCH_USE_ONLY,
        "software": software_json(),
        "table": None if spec.table is None else spec.table.name,
        "split": spec.split,
        "chosen_on": spec.choose_on,
        "bootstrap": {**asdict(spec.bootstrap), "drawn": "groups"},
        "patches": [item.to_json() for item in evaluation.patches],
        "runs": [run_json(item) for item in evaluation.runs],
    }


def write_into_packs(evaluation: Evaluation) -> list[ModelPack]:
    """Put operating points, calibration and figures of each model's default run into its manifest and card.

    Raises:
        ModelChangedError: a pack was replaced since it was measured.
        OutputNotWritableError: no permission, or the disk is full.
    """
    return [_write_into_pack(item, evaluation.spec) for item in evaluation.runs if item.run.is_default and item.verdict]


def _write_into_pack(summary: RunSummary, spec: EvaluationSpec) -> ModelPack:
    verdict = summary.verdict
    assert verdict is not None
    pack, choice = reloaded(summary.run.pack), verdict.choice
    measured = [item for item in summary.outcomes if item.score.is_evaluable]
    on_slides = {
        "software": f"hepamap {software_json()['version']}",
        "split": spec.split,
        "slides": len(measured),
        "not_evaluable": len(summary.outcomes) - len(measured),
        "groups": len({item.group for item in measured}),
        "patches": sum(len(item.truth) for item in measured),
        "mode": summary.run.mode,
        "stride": summary.run.stride_m,
        "interval": f"{spec.bootstrap.level:.0%}, {spec.bootstrap.resamples} draws of patients",
        **{
            name: _figures(summary, rule)
            for name, rule in (("youden_per_slide", YOUDEN), ("at_default_threshold", default_rule(summary)))
        },
    }
    evaluation = {
        **pack.manifest.evaluation,
        "slides": on_slides,
        "operating_points_chosen_on": (
            f"{choice.patches} patches with tissue of {choice.slides} slides ({choice.split}), {summary.run.mode} mode, "
            f"stride {summary.run.stride_m} px"
        ),
        "operating_points_measured_on": (
            f"{on_slides['patches']} patches with tissue of {on_slides['slides']} slides ({spec.split})"
        ),
        "operating_points_remarks": choice.remarks,
    }
    changed = rewrite_manifest(
        pack,
        operating_points=[point.model_dump() for point in verdict.points],
        calibration=verdict.calibration.model_dump(),
        evaluation=evaluation,
    )
    rewrite_card(changed)
    return changed


def default_rule(summary: RunSummary) -> Rule:
    """The fixed threshold that the model uses unless told otherwise."""
    default = summary.run.pack.manifest.default_threshold
    return next(rule for rule in summary.rules if rule.threshold == default)


def _figures(summary: RunSummary, rule: Rule) -> Mapping[str, Any]:
    """Means with their intervals; `slides`: on how many a figure is defined."""
    means = summary.means[rule.name]
    return {
        name: None if found is None else {**found.to_json(), "slides": summary.defined(rule, name)}
        for name, found in means.items()
    }


def _pictures(evaluation: Evaluation, out: Path) -> dict[str, Any]:
    runs = evaluation.runs
    pictures: dict[str, Any] = {}
    if runs or evaluation.patches:
        pictures["roc.png"] = figures.roc_curves(runs, evaluation.patches)
    if runs:
        defaults = [default_rule(item) for item in runs]
        pictures["boxes-youden.png"] = figures.box_plots(runs, [YOUDEN] * len(runs), "Threshold of each slide by Youden's index")
        pictures["boxes-default.png"] = figures.box_plots(runs, defaults, f"Default threshold ({_said(defaults)})")
    if any(item.verdict for item in runs):
        pictures["reliability.png"] = figures.reliability_plots(runs)
        pictures["operating-points.png"] = figures.operating_point_plots(runs)
    for item in runs:
        pictures[f"overlays-{item.run.name}.png"] = overlay_sheet(item, default_rule(item), out / MAPS_FOLDER)
    return pictures


def _said(rules: Sequence[Rule]) -> str:
    return ", ".join(dict.fromkeys(f"{rule.threshold:g}" for rule in rules))
