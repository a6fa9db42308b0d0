"""The figures of a model card, as Markdown, from a manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hepamap.model_pack import ManifestBody

_PATCH_FIGURES = ("patches", "slides", "auc", "accuracy", "sensitivity", "specificity")
_MODE_FIGURES = ("auc", "iou", "sensitivity", "specificity")
_SLIDE_FIGURES = ("sensitivity", "specificity", "precision", "fall_out", "auc", "accuracy", "f1", "iou")


def measured(body: ManifestBody) -> str:
    """Everything that was measured: patches, slides, operating points, calibration, modes; what was not is not mentioned."""
    evaluation = body.evaluation
    parts = [
        *_patches(evaluation),
        *_slides(evaluation.get("slides")),
        *_operating_points(body),
        *_calibration(body),
        *_modes(evaluation.get("modes")),
    ]
    return "\n\n".join(parts) if parts else "Nothing was measured."


def _patches(evaluation: Mapping[str, Any]) -> list[str]:
    rows = [
        [name, *(_figure(evaluation[name].get(key)) for key in _PATCH_FIGURES)]
        for name in ("validation", "test")
        if isinstance(evaluation.get(name), Mapping)
    ]
    if not rows:
        return []
    titles = ["patches of the data set", "number", "slides", "AUC", "accuracy", "sensitivity", "specificity"]
    return [_table(titles, rows), "Accuracy, sensitivity and specificity at 0.5."]


def _slides(found: Any) -> list[str]:
    if not isinstance(found, Mapping):
        return []
    titles = ["whole slides", "Youden, per slide", "default threshold"]
    pairs = [(found["youden_per_slide"].get(name), found["at_default_threshold"].get(name)) for name in _SLIDE_FIGURES]
    rows = [
        [_said(name), *(_mean(value, found["slides"]) for value in pair)]
        for name, pair in zip(_SLIDE_FIGURES, pairs, strict=True)
    ]
    about = (
        f"Means over {found['slides']} slides of {found['groups']} patients ({found['split']}), {found['mode']} mode, stride "
        f"{found['stride']} px; in brackets confidence intervals ({found['interval']}). Youden's threshold is taken from each "
        "slide's own truth, which nobody has for a new slide. IoU of pixels of 1.84 µm."
    )
    if refused := found.get("not_evaluable"):
        about += f" Not evaluable, and left out: {refused} more."
    return [_table(titles, rows), about]


def _mean(value: Any, slides: int) -> str:
    """With the number of slides that have the figure, where not all have it."""
    counted = value.get("slides", slides) if isinstance(value, Mapping) else slides
    return _interval(value) if counted == slides else f"{_interval(value)}, of {counted} slides"


def _operating_points(body: ManifestBody) -> list[str]:
    if not body.operating_points:
        return []
    rows = [[p.name, f"{p.threshold:g}", _figure(p.sensitivity), _figure(p.specificity)] for p in body.operating_points]
    evaluation = body.evaluation
    sentences = [
        f"{word} on {evaluation[key]}."
        for word, key in (("Chosen", "operating_points_chosen_on"), ("Measured", "operating_points_measured_on"))
        if evaluation.get(key)
    ]
    sentences += evaluation.get("operating_points_remarks", [])
    return [_table(["operating point", "threshold", "sensitivity", "specificity"], rows), " ".join(sentences)]


def _calibration(body: ManifestBody) -> list[str]:
    found = body.calibration
    if found is None:
        return []
    return [
        f"Expected calibration error of the probabilities {found.expected_error:.4f}; it would be "
        f"{found.expected_error_at_temperature:.4f} at the temperature {found.temperature:.3g}. "
        "The map shows them as the network answers."
    ]


def _modes(found: Any) -> list[str]:
    if not isinstance(found, Mapping):
        return []
    rows = [[mode, *(_figure(found[mode].get(key)) for key in _MODE_FIGURES)] for mode in ("patch", "dense") if mode in found]
    about = (
        f"Both modes on {len(found.get('slides', ()))} slides, stride {found.get('stride')} px: mean absolute difference of the "
        f"maps {_figure(found.get('map_mean_absolute_difference'))}, IoU of the contours {_figure(found.get('contour_iou'))}."
    )
    return [_table(["mode", "patch AUC", "IoU with the annotations", "sensitivity", "specificity"], rows), about]


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (titles, ["---"] * len(titles), *rows))


def _said(name: str) -> str:
    return {"fall_out": "fall-out", "auc": "AUC", "f1": "F1", "iou": "IoU"}.get(name, name)


def _figure(value: Any) -> str:
    if value is None:
        return "not measured"
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def _interval(found: Any) -> str:
    if not isinstance(found, Mapping):
        return "undefined"
    if found.get("low") is None:
        return f"{found['value']:.3f}"
    return f"{found['value']:.3f} ({found['low']:.3f}–{found['high']:.3f})"
