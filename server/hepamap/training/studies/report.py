"""Tables and pictures of a study, from the rows of its runs; whatever is there, also of a study that is not finished."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hepamap.training.studies.figures import draw_factors, draw_sizes, draw_strides
from hepamap.training.studies.summary import Group, grouped
from hepamap.training.studies.table import FAILED, Key, Row, write_csv, write_text

NOTICE = "For Research Use Only. Not for use in diagnostic procedures."

_MEASURES = ("auc", "sensitivity", "specificity", "iou")
_SPREAD = ("runs", "failed", "mean_auc", "deviation_auc", "lowest_auc", "highest_auc", "mean_seconds")


def write_factor_report(out: Path, rows: Sequence[Row], order: Mapping[str, Sequence[str]], factors: Sequence[str]) -> None:
    """`factors.csv`, `factors.md` and `factors.png`: each combination with mean and spread, the best first.

    Args:
        out: folder of the study.
        rows: its finished runs.
        order: values of each factor, as the axes show them.
        factors: columns that make a combination.
    """
    # Values that a study file had once may still have runs.
    order = {name: list(dict.fromkeys([*values, *(row[name] for row in rows)])) for name, values in order.items()}
    groups = sorted(grouped(rows, factors), key=lambda group: -_or_lowest(group.of("auc").mean))
    _write_spread(out / "factors.csv", groups, factors)
    effects = [(factor, group) for factor in factors for group in grouped(rows, (factor,), _placed(order, (factor,)))]
    lines = [
        "# Factor study",
        "",
        f"{_counted(rows)}, {len(groups)} combinations; AUC on the test patches.",
        "",
        *_markdown(["backbone", "head", "batch size", "optimiser"], groups),
        "",
        "Each factor alone, over all runs:",
        "",
        "| factor | value | runs | mean AUC | deviation |",
        "|---|---|---|---|---|",
        *(
            f"| {factor.replace('_', ' ')} | {group.key[0]} | {len(group.rows)} | {_number(group.of('auc').mean)} | "
            f"{_number(group.of('auc').deviation)} |"
            for factor, group in effects
        ),
    ]
    write_text(out / "factors.md", _page(lines, rows))
    draw_factors(out / "factors.png", groups, order)


def write_size_report(out: Path, rows: Sequence[Row], network: str) -> None:
    """`data-size.csv`, `data-size.md` and `data-size.png`: mean and spread by number of training patches."""
    groups = grouped(rows, ("patches",), lambda key: (int(key[0]),))
    _write_spread(out / "data-size.csv", groups, ("patches",))
    lines = [
        "# Data-size study",
        "",
        f"{network}; {_counted(rows)}; AUC on the test patches.",
        "",
        *_markdown(["patches"], groups),
    ]
    write_text(out / "data-size.md", _page(lines, rows))
    draw_sizes(out / "data-size.png", groups, network)


def write_stride_report(out: Path, rows: Sequence[Row]) -> None:
    """`stride.csv`, `stride.md` and `stride.png`: means over slides, and the median of the time, by model, mode and stride."""
    groups = grouped(rows, ("model", "mode", "stride"))
    groups.sort(key=lambda group: (group.key[0], group.key[1], int(group.key[2])))
    columns = ("model", "mode", "stride", "stride_um", "overlap", "slides", "failed")
    table = []
    for group in groups:
        row: Row = dict(zip(("model", "mode", "stride"), group.key, strict=True))
        row |= {name: group.rows[0][name] if group.rows else "" for name in ("stride_um", "overlap")}
        row |= {"slides": str(len(group.rows)), "failed": str(group.failed)}
        for measure in _MEASURES:
            row[f"mean_{measure}"], row[f"deviation_{measure}"] = (
                _plain(value) for value in (group.of(measure).mean, group.of(measure).deviation)
            )
        row["median_seconds"] = _plain(group.of("seconds").median)
        table.append(row)
    names = [f"{kind}_{measure}" for measure in _MEASURES for kind in ("mean", "deviation")]
    write_csv(out / "stride.csv", (*columns, *names, "median_seconds"), table)
    devices = sorted({row["device"] for row in rows if row["device"]})
    lines = [
        "# Stride study",
        "",
        f"Mean ± standard deviation over slides; time: median of a slide, map and contours, on {' and '.join(devices)}.",
        "",
        "| model | mode | stride (px) | on the slide (µm) | slides | AUC | sensitivity | specificity | IoU | s |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(_stride_line(group, row) for group, row in zip(groups, table, strict=True)),
    ]
    write_text(out / "stride.md", _page(lines, rows))
    draw_strides(out / "stride.png", groups)


def _stride_line(group: Group, row: Row) -> str:
    measured = " | ".join(f"{_number(group.of(name).mean)} ± {_number(group.of(name).deviation)}" for name in _MEASURES)
    stride = row["stride"] + (" (no overlap)" if row["overlap"] == "0.000" else "")
    return (
        f"| {row['model']} | {row['mode']} | {stride} | {row['stride_um']} | {row['slides']} | {measured} | "
        f"{_number(group.of('seconds').median, 1)} |"
    )


def _write_spread(path: Path, groups: Sequence[Group], by: Sequence[str]) -> None:
    table = []
    for group in groups:
        auc = group.of("auc")
        numbers = (auc.mean, auc.deviation, auc.lowest, auc.highest, group.of("seconds").mean)
        values = (str(len(group.rows)), str(group.failed), *map(_plain, numbers))
        table.append({**dict(zip(by, group.key, strict=True)), **dict(zip(_SPREAD, values, strict=True))})
    write_csv(path, (*by, *_SPREAD), table)


def _markdown(names: Sequence[str], groups: Sequence[Group]) -> list[str]:
    lines = [
        f"| {' | '.join(names)} | runs | mean AUC | deviation | lowest | highest | s per run |",
        "|---" * (len(names) + 6) + "|",
    ]
    for group in groups:
        auc = group.of("auc")
        numbers = " | ".join(_number(value) for value in (auc.mean, auc.deviation, auc.lowest, auc.highest))
        runs = f"{len(group.rows)}" + (f" ({group.failed} failed)" if group.failed else "")
        lines.append(f"| {' | '.join(group.key)} | {runs} | {numbers} | {_number(group.of('seconds').mean, 0)} |")
    return lines


def _page(lines: Sequence[str], rows: Sequence[Row]) -> str:
    failed = [row for row in rows if row["status"] == FAILED]
    told = ["", "Failed:", "", *(f"- {_name(row)}: {row['message']}" for row in failed)] if failed else []
    return "\n".join([*lines, *told, "", NOTICE, ""])


def _name(row: Row) -> str:
    """What stands before the column `status`."""
    return " ".join(list(row.values())[: list(row).index("status")])


def _counted(rows: Sequence[Row]) -> str:
    failed = sum(row["status"] == FAILED for row in rows)
    return f"{len(rows)} runs" + (f", {failed} of them failed" if failed else "")


def _placed(order: Mapping[str, Sequence[str]], factors: Sequence[str]) -> Callable[[Key], tuple[int, ...]]:
    return lambda key: tuple(order[factor].index(value) for factor, value in zip(factors, key, strict=True))


def _or_lowest(value: float) -> float:
    return -1.0 if math.isnan(value) else value


def _number(value: float, digits: int = 3) -> str:
    """For people: a dash where there is none."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def _plain(value: float) -> str:
    """For programs: empty where there is none."""
    return "" if math.isnan(value) else f"{value:.4f}"
