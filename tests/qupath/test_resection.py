"""Contours of a whole resection follow the slider; `make slider` checks how long they take, from the hand to the hierarchy."""

from __future__ import annotations

import os
import re
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hepamap.api.serve import spare_the_loaded
from hepamap.benchmark.thresholds import RESECTION, ragged_map
from hepamap.geometry import Lattice, PixelSize, Region, Size
from hepamap.pipeline import Analysis, regions_of
from hepamap.probability_map import ProbabilityMap
from hepamap.results import Frame, open_result, summary_of, write_result
from tests.conftest import WriteSlide
from tests.qupath.conftest import Person
from tests.qupath.live import MPP, Server

MOVES = int(os.environ.get("HEPAMAP_TEST_SLIDER_MOVES", "0"))
"""How often the slider is moved over a whole resection; otherwise a few times, over a piece of one."""
SIZE = RESECTION if MOVES else Size(170, 340)
MEDIAN_MS = 300
_AREA_UM2 = 10_000.0


def becomes_a_resection(folder: Path) -> ProbabilityMap:
    """Put a map of many regions into the place of a result; of 2 × 2 px each, or the slide would have gigabytes."""
    stored = open_result(folder)
    frame = Frame("level0", stored.frame.offset_l0)
    grid = replace(stored.map.lattice.grid, pixel_size=PixelSize(29.44 / 2, 29.44 / 2))
    lattice = Lattice(grid, 0, 0, SIZE.width, SIZE.height)
    resection = ProbabilityMap(ragged_map(SIZE).values, lattice, stored.map.provenance)
    analysis = Analysis(resection, regions_of(resection, 0.5, _AREA_UM2, _AREA_UM2), "ok", [])
    summary = {**stored.summary, **summary_of(analysis, frame, stored.summary["parameters"])}
    picture = np.full((8, 8, 3), 255, np.uint8)
    write_result(folder, analysis, summary, frame, picture, Region(0.0, 0.0, 8.0, 8.0), overwrite=True)
    return resection


def test_contours_of_a_resection_follow_the_slider(
    person: Person, real_server: Server, write_slide: WriteSlide, tmp_path: Path
) -> None:
    tissue = np.full((2 * SIZE.height + 40, 2 * SIZE.width + 40, 3), (190, 110, 160), np.uint8)
    path = write_slide(tissue, MPP).rename(real_server.slides / "resection.tif")
    person.settings["server"] = real_server.url
    size = [tissue.shape[1], tissue.shape[0]]
    person.image = {"name": path.name, "level0": size, "um_per_px": MPP, "uris": [path.as_uri()], "objects": []}
    detect: list[dict[str, Any]] = [{"item": "Detect tumor"}, {"wait": "dialog"}]
    person.runs_it(steps=detect)
    (folder,) = (path for path in (tmp_path / "data" / "results").iterdir() if path.is_dir())
    resection = becomes_a_resection(folder)
    if MOVES:
        spare_the_loaded()  # as a server of its own does at its start
    # Neighbours with other numbers of regions, so that what the window says tells which of them is drawn.
    thresholds: list[float] = []
    regions: list[int] = []
    moves = MOVES or 3
    for threshold in (round(0.3 + 0.4 * move / moves, 3) for move in range(moves)):
        count = len(regions_of(resection, threshold, _AREA_UM2, _AREA_UM2))
        if regions[-1:] != [count]:
            thresholds.append(threshold)
            regions.append(count)
    steps: list[dict[str, Any]] = []
    for threshold, count in zip(thresholds, regions, strict=True):
        steps += [{"set": {"threshold-slider": threshold}}, {"until": rf"^{count} tumor regions.* ms\)"}, {"note": {}}]
    outcome = person.runs_it(steps=[*detect, {"item": "Adjust threshold…"}, {"until": "Tumor is what has"}, *steps])
    assert outcome["errors"] == [], outcome["dialogs"]
    assert [len(note["image"]["objects"]) for note in outcome["notes"]] == regions
    said = [next(text for text in note["labels"] if " ms)" in text) for note in outcome["notes"]]
    times = [int(found[1]) for text in said if (found := re.search(r"\((\d+) ms\)", text))]
    median = statistics.median(times)
    line = f"{said[0].split(',')[0]} and so on: median {median:.0f} ms, longest {max(times)} ms"
    print(f"\n{SIZE.width} × {SIZE.height} cells, {line}")  # noqa: T201
    if MOVES:  # on a machine that does other things too, the time says nothing
        assert median <= MEDIAN_MS
