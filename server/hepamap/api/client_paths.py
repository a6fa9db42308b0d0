"""How clients write paths (drives, UNC shares, smb: and file: addresses), and the table that leads them to folders here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

_DRIVE = re.compile(r"/?([A-Za-z]):(?:/|$)")
_VERBATIM_UNC, _VERBATIM = "//?/unc/", "//?/"


@dataclass(frozen=True, slots=True)
class ClientPath:
    """A path as a client means it, whatever way it was written."""

    anchor: str
    """`/` of POSIX, `s:/` of a drive, `//server` of a share; empty where the path begins nowhere."""
    parts: tuple[str, ...]

    @property
    def any_case(self) -> bool:
        """Whether upper and lower case are the same there: on drives and shares."""
        return self.anchor not in ("", "/")

    @property
    def climbs(self) -> bool:
        """Whether it has a part that could lead elsewhere than down."""
        return any(part == ".." or "\0" in part for part in self.parts)

    def below(self, prefix: ClientPath) -> tuple[str, ...] | None:
        """The parts that remain below a prefix; None where it does not lie there."""
        count = len(prefix.parts)
        if self.anchor != prefix.anchor or self._folded(self.parts[:count]) != self._folded(prefix.parts):
            return None
        return self.parts[count:]

    def _folded(self, parts: Iterable[str]) -> list[str]:
        return [part.casefold() if self.any_case else part for part in parts]

    def __str__(self) -> str:
        """In the one spelling that messages use."""
        if self.anchor.startswith("//"):
            return "/".join((self.anchor, *self.parts))
        return self.anchor + "/".join(self.parts)


def parse_client_path(text: str) -> ClientPath:
    r"""Read a path.

    Args:
        text: such as `S:\slides\a.svs`, `\\server\share\a.svs`, `smb://server/share/a.svs`, `file:///S:/slides/a.svs`,
            `/mnt/slides/a.svs`. Escapes (%20) are undone in addresses only.
    """
    slashed = _without_scheme(text)
    if slashed.lower().startswith(_VERBATIM_UNC):
        slashed = "//" + slashed[len(_VERBATIM_UNC) :]
    elif slashed.startswith(_VERBATIM):
        slashed = slashed[len(_VERBATIM) :]
    if slashed.startswith("//"):
        server, *parts = [part for part in slashed.split("/") if part] or [""]
        return ClientPath(f"//{server.casefold()}", _clean(parts))
    drive = _DRIVE.match(slashed)
    if drive:
        return ClientPath(f"{drive[1].lower()}:/", _clean(slashed[drive.end() :].split("/")))
    return ClientPath("/" if slashed.startswith("/") else "", _clean(slashed.split("/")))


def _without_scheme(text: str) -> str:
    """The path with slashes only; of an address, what follows the scheme."""
    scheme, colon, rest = text.partition(":")
    kind = scheme.lower() if colon else ""
    if kind == "smb":
        server, slash, path = unquote(rest).lstrip("/").partition("/")
        return f"//{server.rpartition('@')[2]}{slash}{path}"
    if kind == "file":
        # Three slashes, or one, before a path of the client's own machine; two before the name of a server.
        local = rest.startswith("///") or not rest.startswith("//")
        path = unquote(rest)
        return "/" + path.lstrip("/") if local and not path.startswith("////") else path.removeprefix("//localhost")
    # A POSIX name may have a backslash in it; a path that begins as one of Windows may not.
    windows = text.startswith("\\\\") or re.match(r"[A-Za-z]:[\\/]", text)
    return text.replace("\\", "/") if windows else text


def _clean(parts: Iterable[str]) -> tuple[str, ...]:
    return tuple(part for part in parts if part not in ("", "."))


def mapped(path: ClientPath, mappings: Mapping[str, Path]) -> Path | None:
    """Where a client's path lies on this server, by the longest prefix of the table that it begins with.

    Names that differ in case only are found where the client's file system takes them for one. The answer need not exist.
    """
    found: tuple[int, Path, tuple[str, ...]] | None = None
    for text, folder in mappings.items():
        prefix = parse_client_path(text)
        rest = path.below(prefix)
        if rest is not None and (found is None or len(prefix.parts) > found[0]):
            found = (len(prefix.parts), folder, rest)
    if found is None:
        return None
    _, folder, rest = found
    return _in_any_case(folder, rest) if path.any_case else folder.joinpath(*rest)


def _in_any_case(folder: Path, parts: Sequence[str]) -> Path:
    """Go down by names, first as they are spelt, then in any case where just one name fits."""
    for index, part in enumerate(parts):
        exact = folder / part
        if not os.path.lexists(exact):
            try:
                fitting = [name for name in os.listdir(folder) if name.casefold() == part.casefold()]
            except OSError:
                fitting = []
            if len(fitting) != 1:
                return folder.joinpath(*parts[index:])
            exact = folder / fitting[0]
        folder = exact
    return folder
