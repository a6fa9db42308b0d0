"""The folder of a study: one process at a time, one piece of work for good, and room on its disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hepamap.jobs.processes import exclusive_lock
from hepamap.training.errors import ResumeImpossibleError, StudyBusyError
from hepamap.training.studies.table import not_writable, write_text

RUNS_NAME, STUDY_NAME, RUN_FOLDER = "runs.csv", "study.json", "runs"
_LOCK_NAME = ".lock"


@contextmanager
def study_folder(out: Path, work: dict[str, Any]) -> Iterator[None]:
    """Make the folder, or enter it where it is of the same work; no other process may, meanwhile.

    Args:
        out: the folder.
        work: what decides the numbers of a run, apart from the run's own factors.

    Raises:
        StudyBusyError: another process is in it.
        ResumeImpossibleError: the folder has runs of other work.
        OutputNotWritableError: it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / _LOCK_NAME).touch()
    except OSError as error:
        raise not_writable(out, error) from error
    with exclusive_lock(out / _LOCK_NAME, give_up=lambda: True) as held:
        if not held:
            raise StudyBusyError(
                f"Another process works on the study in {out.name}.", cure="Wait for it, or name another folder with --out."
            )
        _require_same_work(out, work)
        yield


def _require_same_work(out: Path, work: dict[str, Any]) -> None:
    path = out / STUDY_NAME
    text = json.dumps(work, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    if not path.exists():
        if (out / RUNS_NAME).exists():
            raise ResumeImpossibleError(
                f"The folder {out.name} has runs, but does not say of which study.", cure="Name another folder with --out."
            )
        write_text(path, text)
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResumeImpossibleError(
            f"The file {out.name}/{STUDY_NAME} cannot be read ({error}).", cure="Name another folder with --out."
        ) from error
    now = json.loads(text)
    if before != now:
        changed = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
        raise ResumeImpossibleError(
            f"The runs in {out.name} are of a study with another “{'”, “'.join(changed)}”.",
            cure="Go on with the same study file and data set, or name another folder with --out.",
        )
