"""The course of a training as a picture."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from hepamap.errors import OutputNotWritableError

_INCHES, _DPI = (10, 4), 110


def draw_curves(log: Path, picture: Path) -> None:
    """Draw loss and accuracy over the epochs; nothing where the log has no epoch.

    Args:
        log: the CSV log of a training.
        picture: PNG to write.

    Raises:
        OutputNotWritableError: the picture cannot be written.
    """
    curves = read_log(log)
    if not curves:
        return
    # Figure without pyplot: no window system, no state between threads.
    from matplotlib.figure import Figure

    figure = Figure(_INCHES, layout="constrained")
    for axes, kind in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for name, values in curves.items():
            if name.endswith(kind):
                style = "-" if name.startswith("val_") else "--"
                axes.plot(range(1, len(values) + 1), values, style, marker=".", label=_said(name, kind))
        axes.set_xlabel("epoch")
        axes.set_title(kind)
        axes.legend()
        axes.grid(alpha=0.3)
    figure.axes[0].set_yscale("log")
    try:
        figure.savefig(picture, dpi=_DPI)
    except OSError as error:
        raise OutputNotWritableError(
            f"The picture {picture.name} cannot be written ({error.strerror}).", cure="Check permissions and free space."
        ) from error


def read_log(log: Path) -> dict[str, list[float]]:
    """The columns of a CSV log by name, without the number of the epoch; empty where there is no epoch yet."""
    if not log.exists():
        return {}
    with log.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name != "epoch"] if rows else []
    return {name: [_number(row[name]) for row in rows] for name in names}


def _number(text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        return math.nan  # a gap in the curve


def _said(name: str, kind: str) -> str:
    """`val_patches_loss` as “validation, patches”."""
    words = name.removesuffix(kind).strip("_").split("_")
    part = " ".join(word for word in words if word and word != "val")
    return ("validation" if words[0] == "val" else "training") + (f", {part}" if part else "")
