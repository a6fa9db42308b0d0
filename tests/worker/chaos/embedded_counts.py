"""What is counted after the chaos of the embedded form."""

from __future__ import annotations

import io
import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import text

from hepamap.delivery.signature import signature_of
from hepamap.detection import DetectionRequest, detect
from hepamap.jobs.store import JobStore
from hepamap.operations import tallies
from hepamap.settings import Settings
from tests.worker.fleet import threshold_of
from tests.worker.mapping_worker import BrightnessDetector

SECRET = b"0123456789abcdef0123456789abcdef"
MAP: Mapping[str, Any] = {"mode": "patch", "stride": 64}
PIECES = 4
_PIECE_PATCHES = 3 * 16
_MAP_NAME = "probability-map.npy"


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen while it went on."""

    asked: int
    accepted: Mapping[int, str]
    """Number of each question that was answered, and the id of its analysis."""
    analyses: Sequence[Any]
    """All that the server knows of in the end."""
    requests: Sequence[tuple[str, Mapping[str, str], bytes]]
    """That the receiver of callbacks got."""
    kills: Mapping[str, int]
    """By victim."""
    kills_amid: Mapping[str, int]
    """Those that fell between the pieces of a map, and those of a server while the receiver had not answered yet."""
    processes_left: int
    """Of all that the servers had started, after the last server was stopped."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the jobs."""

    asked: int
    accepted: int
    """Ids of analyses that the requests were answered by."""
    results: int
    right: int
    """Results for the threshold that was asked, with the bytes of a map that was made undisturbed."""
    lost: int
    """Asked for, and without a result."""
    twice: int
    """Analyses beyond those asked for, ends stored beyond one for each, and callbacks beyond one that are no repetitions."""
    callbacks_wanted: int
    callbacks_received: int
    """Analyses of which somebody wanted to hear and has heard, once or more."""
    callbacks_repeated: int
    """Sent again by a server that could not know that the one before it was heard."""
    callbacks_wrong: int
    """Not signed rightly, not wanted, or not of a success."""
    patches: int
    """Of all maps."""
    patches_answered: int
    """By the network: more of them, where a piece that was killed was begun anew."""
    kills: Mapping[str, int]
    kills_amid: Mapping[str, int]
    database_whole: bool
    processes_left: int
    seconds: float

    @property
    def flawless(self) -> bool:
        """Nothing lost, nothing twice, nothing wrong; and no kill costs a map more than the piece that was being made."""
        return (
            self.asked == self.accepted == self.results == self.right
            and self.callbacks_wanted == self.callbacks_received
            and not (self.lost or self.twice or self.callbacks_wrong or self.processes_left)
            and self.database_whole
            and 0 <= self.patches_answered - self.patches <= _PIECE_PATCHES * sum(self.kills.values())
        )


def wants_callback(number: int) -> bool:
    """Whether a question asks for one: three of four do."""
    return number % 4 != 3


def counted(settings: Settings, slides: Sequence[Path], seen: Seen) -> Counts:
    """Look at what was seen, and at what lies in the data folder.

    Args:
        settings: of the site, whose server has ended.
        slides: question n was about slide n, and so on from the first one again.
        seen: while it ran.
    """
    with closing(JobStore.open(settings.database)) as store:
        found = {number: _folder(store, settings, analysis) for number, analysis in seen.accepted.items()}
        with store.reading() as session:
            ends = sum(tally.count for tally in tallies.read(session)[tallies.OUTCOMES])
            whole = session.scalar(text("PRAGMA integrity_check")) == "ok"
    maps = _undisturbed(settings, slides)
    results = {number: folder for number, folder in found.items() if folder is not None}
    deliveries, wrong = _deliveries(seen)
    distinct = sum(len(ids) for ids in deliveries.values())
    answered = (settings.data_dir / "answers.log").read_text().splitlines()
    return Counts(
        asked=seen.asked,
        accepted=len(set(seen.accepted.values())),
        results=len(results),
        right=sum(_is_right(folder, number, maps[number % len(maps)]) for number, folder in results.items()),
        lost=seen.asked - len(results),
        twice=_beyond(len(seen.analyses), seen.asked) + _beyond(ends, len(seen.analyses)) + distinct - len(deliveries),
        callbacks_wanted=sum(wants_callback(number) for number in range(seen.asked)),
        callbacks_received=len(deliveries),
        callbacks_repeated=len(seen.requests) - wrong - distinct,
        callbacks_wrong=wrong,
        patches=sum(_patches(maps[number % len(maps)]) for number in range(seen.asked)),
        patches_answered=sum(int(line.split()[1]) for line in answered),
        kills=seen.kills,
        kills_amid=seen.kills_amid,
        database_whole=whole,
        processes_left=seen.processes_left,
        seconds=seen.seconds,
    )


def _beyond(found: int, wanted: int) -> int:
    return max(0, found - wanted)


def _folder(store: JobStore, settings: Settings, analysis: str) -> Path | None:
    """The result of an analysis that succeeded."""
    job = store.get(analysis)
    return None if job is None or job.result is None else settings.results_dir / job.result.location


def _undisturbed(settings: Settings, slides: Sequence[Path]) -> list[bytes]:
    """The files of the maps of all slides."""
    detector = BrightnessDetector(settings.models_dir, 0.0)
    maps = []
    for slide in slides:
        with tempfile.TemporaryDirectory() as folder:
            request = DetectionRequest(slide, settings.default_model, mode=MAP["mode"], stride_m=MAP["stride"])
            detect(request, Path(folder), detector, overwrite=True)
            maps.append((Path(folder) / _MAP_NAME).read_bytes())
    assert len(set(maps)) == len(slides), "a map of another slide would not be noticed"
    return maps


def _patches(content: bytes) -> int:
    return int(np.isfinite(np.load(io.BytesIO(content))).sum())


def _is_right(folder: Path, number: int, wanted: bytes) -> bool:
    try:
        summary = json.loads((folder / "result.json").read_text())
        return bool(summary["parameters"]["threshold"] == threshold_of(number) and (folder / _MAP_NAME).read_bytes() == wanted)
    except OSError:
        return False


def _deliveries(seen: Seen) -> tuple[Mapping[str, set[str]], int]:
    """The ids of the deliveries of each analysis, and how many requests there were that should not have been."""
    wanted = {analysis for number, analysis in seen.accepted.items() if wants_callback(number)}
    found: dict[str, set[str]] = defaultdict(set)
    wrong = 0
    for _, headers, body in seen.requests:
        signature = signature_of(SECRET, int(headers["hepamap-timestamp"]), body)
        told = json.loads(body)
        analysis = told["analysis"]
        if headers["hepamap-signature"] == signature and analysis["id"] in wanted and analysis["state"] == "succeeded":
            found[analysis["id"]].add(told["delivery"])
        else:
            wrong += 1
    return found, wrong
