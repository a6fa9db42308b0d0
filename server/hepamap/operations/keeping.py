"""How long things are kept, by the settings."""

from __future__ import annotations

from hepamap.jobs.retention import Keeping
from hepamap.settings import Settings


def keeping_of(settings: Settings) -> Keeping:
    """What `jobs.retention` needs to know."""
    return Keeping(
        results=settings.results_dir,
        uploads=settings.uploads_dir,
        scratch=settings.scratch_dir,
        results_days=settings.keep_results_days,
        uploads_days=settings.keep_uploads_days,
    )
