"""From the sources to one self-contained Groovy script.

A source has a header comment, then imports, then code. The script has all imports first, each once and sorted; then file
after file, each under its name and its header.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from hepamap import RESEARCH_USE_ONLY, __version__
from hepamap.qupath_client.errors import ClientSourcesInvalidError, ServerAddressInvalidError
from hepamap.qupath_client.sources import Source

_IMPORT = re.compile(r"import\s+(?P<static>static\s+)?(?P<what>[\w.]+(\.\*)?)(\s+as\s+(?P<alias>\w+))?\s*;?\s*(//.*)?")
_PACKAGE = re.compile(r"^package\s", re.MULTILINE)
_PLACEHOLDER = re.compile(r"^(?P<before>.*\bString SERVER_URL = )''(?P<after>\s*// filled in by the server.*)$", re.MULTILINE)
_ADDRESS = re.compile(r"https?://[A-Za-z0-9._~:/\[\]%-]+")


@dataclass(frozen=True, slots=True)
class _Parts:
    header: str
    imports: tuple[str, ...]
    code: str


def assemble(sources: Sequence[Source], server_url: str) -> str:
    """Put the script together; the same sources and address give the same bytes.

    Args:
        sources: in their order.
        server_url: where the client finds the server; empty: the person says it in the script's settings.

    Raises:
        ClientSourcesInvalidError: imports contradict each other, or the place for the address is not there just once.
        ServerAddressInvalidError: the address is none.
    """
    parts = [(source.name, _split(source)) for source in sources]
    imports = _merged([(name, line) for name, part in parts for line in part.imports])
    sections = [_section(name, part) for name, part in parts]
    top = (
        f"// hepamap {__version__} for QuPath. {RESEARCH_USE_ONLY}\n"
        "// Put together from the files named below: change those, not this one."
    )
    return _with_address("\n\n".join([top, "\n".join(imports), *sections]) + "\n", server_url)


def require_address(server_url: str) -> str:
    """Check a server's address, and take the slash off its end.

    Raises:
        ServerAddressInvalidError: it is none.
    """
    try:
        parsed = urlsplit(server_url)
        usable = bool(_ADDRESS.fullmatch(server_url)) and bool(parsed.hostname) and parsed.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ServerAddressInvalidError(
            f"{server_url[:200]!r} is no address of a server.", cure="Give one such as http://pathology-server:8000."
        )
    return server_url.rstrip("/")


def _split(source: Source) -> _Parts:
    """Take a source apart; only imports that stand before all code are taken out of it."""
    if _PACKAGE.search(source.text):
        raise ClientSourcesInvalidError(
            f"The source {source.name} names a package, which one script cannot have.", cure="Remove that line."
        )
    lines = source.text.replace("\r\n", "\n").split("\n")
    end = _header_end(lines)
    header, rest = "\n".join(lines[:end]).strip(), lines[end:]
    imports = []
    while rest and (not rest[0].strip() or _IMPORT.fullmatch(rest[0].strip())):
        line = rest.pop(0).strip()
        if line:
            imports.append(line)
    return _Parts(header, tuple(imports), "\n".join(rest).strip("\n").rstrip())


def _header_end(lines: Sequence[str]) -> int:
    """How many lines the comment has that a source begins with."""
    first = next((number for number, line in enumerate(lines) if line.strip()), len(lines))
    if first == len(lines):
        return first
    if lines[first].lstrip().startswith("/*"):
        closing = next((number for number, line in enumerate(lines) if number >= first and "*/" in line), len(lines) - 1)
        return closing + 1
    end = first
    while end < len(lines) and lines[end].lstrip().startswith("//"):
        end += 1
    return end


def _merged(found: Sequence[tuple[str, str]]) -> list[str]:
    """The imports, each once, sorted; static ones last."""
    meaning: dict[str, tuple[str, str]] = {}
    lines = set()
    for name, line in found:
        form = _IMPORT.fullmatch(line)
        assert form is not None
        static, alias = bool(form["static"]), form["alias"]
        statement = f"import {'static ' if static else ''}{form['what']}{f' as {alias}' if alias else ''}"
        short = alias or form["what"].rpartition(".")[2]
        before, of = meaning.setdefault(f"{static} {short}", (statement, name)) if short != "*" else (statement, name)
        if before != statement:
            raise ClientSourcesInvalidError(
                f"“{short}” means {before[7:]} in {of} and {statement[7:]} in {name}.", cure="Write one of them out in full."
            )
        lines.add(statement)
    return sorted(lines, key=lambda line: (line.startswith("import static "), line))


def _section(name: str, part: _Parts) -> str:
    mark = f"// ---- {name} " + "-" * max(4, 110 - len(name))
    return "\n".join(piece for piece in (mark, part.header, part.code) if piece)


def _with_address(script: str, server_url: str) -> str:
    places = len(_PLACEHOLDER.findall(script))
    if places != 1:
        raise ClientSourcesInvalidError(
            f"The line that holds the server's address is there {places} times.",
            cure="One source must have the line: final String SERVER_URL = ''  // filled in by the server",
        )
    literal = _groovy_literal(require_address(server_url)) if server_url else "''"
    return _PLACEHOLDER.sub(lambda found: f"{found['before']}{literal}{found['after']}", script)


def _groovy_literal(text: str) -> str:
    """A text as Groovy's plain string. No address that is taken needs an escape; this holds if that is ever relaxed."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
