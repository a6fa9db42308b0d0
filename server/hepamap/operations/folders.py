"""The folders that the server writes into."""

from __future__ import annotations

from hepamap.errors import OutputNotWritableError
from hepamap.settings import Settings


def make_folders(settings: Settings) -> None:
    """Make the folders that are not there yet, for this account alone: results and uploads are somebody's tissue.

    Raises:
        OutputNotWritableError: one of them cannot be made.
    """
    for folder in (settings.data_dir, settings.results_dir, settings.uploads_dir):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        except OSError as error:
            raise OutputNotWritableError(
                f"The folder {folder} cannot be made: {error.strerror}.", cure="Set HEPAMAP_DATA_DIR to a writable folder."
            ) from error
