"""The source files of the client: `NN_name.groovy`, in the order of their numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hepamap.qupath_client.errors import ClientSourcesInvalidError, ClientSourcesMissingError

_NAME = re.compile(r"(?P<number>\d+)_\w+\.groovy")


@dataclass(frozen=True, slots=True)
class Source:
    """One file."""

    name: str
    text: str


def sources_folder() -> Path:
    """Where the sources lie: inside an installed wheel, else in the checkout that this package is run from."""
    packaged = Path(__file__).resolve().parent / "sources"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[3] / "qupath_scripts" / "hepamap"


def read_sources(folder: Path) -> list[Source]:
    """All sources in their order; files that are no Groovy are passed over.

    Raises:
        ClientSourcesMissingError: there is none.
        ClientSourcesInvalidError: a file has no number in its name, shares it with another one, or is no text.
    """
    numbered: dict[int, Path] = {}
    for path in sorted(folder.glob("*.groovy")):
        form = _NAME.fullmatch(path.name)
        if form is None:
            raise ClientSourcesInvalidError(
                f"The source {path.name} does not begin with a number.", cure="Name it as the others, such as 10_settings.groovy."
            )
        other = numbered.setdefault(int(form["number"]), path)
        if other != path:
            raise ClientSourcesInvalidError(
                f"The sources {other.name} and {path.name} have the same number.", cure="Give one of them another number."
            )
    if not numbered:
        raise ClientSourcesMissingError(
            "This installation has no sources of the QuPath client (qupath_scripts/hepamap/*.groovy).",
            cure="Install hepamap again, from a wheel or a whole checkout.",
        )
    return [Source(path.name, _text(path)) for _, path in sorted(numbered.items())]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ClientSourcesInvalidError(
            f"The source {path.name} cannot be read as text in UTF-8.", cure="Install hepamap again, or mend the file."
        ) from error
