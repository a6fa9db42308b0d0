"""Where the files of jobs lie, and how long they are kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Keeping:
    """The folders, and what is kept in them; see the settings of the same names."""

    results: Path
    uploads: Path
    scratch: Path
    results_days: float
    """After a job has finished; 0: until somebody deletes it."""
    uploads_days: float
    """After the last computation that read it has finished; 0: as long as the job."""
