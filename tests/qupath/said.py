"""What the script says, read from its text: the literals that reach a person, with an ellipsis for what differs."""

from __future__ import annotations

import re
from collections.abc import Iterator

# Calls whose first argument, or a named one, is shown to a person. Progress and what came of an analysis are not among them.
_CALLS = "|".join(
    (
        r"new (?:Trouble|NoAnswer|Refused)\(",
        r"\b(?:failure|withdrawn|unanswered|wrong|tellShortly|confirmed)\(",
        r"\b(?:state|problem)\.setText\(",
        r"\bHepamap\.say\(",
        r"\btext: ",
        r"\b(?:UNSAVED|FRAME_UNKNOWN) = ",
    )
)
# Texts that a class gives back as its last line or by a return, or hands on to Trouble.
_LAST = r"(?m)^ +(?:return )?(?=[\"'])"
_CLASSES = {"Reasons": _LAST, "SettingsWindow": _LAST, "AnnotationExport": _LAST, "ImageGone": r"\bsuper\("}
_FORMAT = "String.format(Locale.ROOT, "
_CONSTANTS = ("OWN_DISKS", "WHERE_ADDRESS", "WHERE", "UNSAVED", "FRAME_UNKNOWN")


def messages(script: str) -> set[str]:
    """All of them, white space made even."""
    code = _uncommented(script)
    found = {text for at in re.finditer(_CALLS, code) for text in _read(code, at.end())}
    for name, begins in _CLASSES.items():
        body = code[code.index(f"class {name} ") :]
        body = body[: body.index("\n}\n")]
        for at in re.finditer(begins, body):
            if not body[: at.start()].rstrip().endswith(("+", "=")):
                found |= set(_read(body, at.end()))
    known = {name: next(_read(code, code.index(f" {name} = ") + len(name) + 4)) for name in _CONSTANTS if name != "WHERE"}
    known["WHERE"] = known["WHERE_ADDRESS"]
    for name in _CONSTANTS:
        found = {text.replace(f"${{{name}}}", known[name]) for text in found}
    found = {re.sub(r"\s+", " ", text).strip().removeprefix("hepamap: ") for text in found}
    return {text for text in found if re.search(r"\w{3}", text)}


def _uncommented(script: str) -> str:
    return re.sub(r"(?s)/\*.*?\*/|(?<![:/])//[^\n]*", "", script)


def _read(code: str, at: int) -> Iterator[str]:
    """The texts that an expression can have, up to the comma or bracket that ends it, or the end of its line."""
    text, depth = "", 0
    while True:
        char = code[at]
        if char in "'\"":
            literal, at = _literal(code, at)
            text += literal if depth == 0 else ""
            continue
        if depth == 0 and code.startswith(_FORMAT, at):
            at += len(_FORMAT)
            continue
        if depth == 0 and (char in ",)]}" or (char == "\n" and not _goes_on(code, at))):
            break
        depth += {**dict.fromkeys("([{", 1), **dict.fromkeys(")]}", -1)}.get(char, 0)
        if depth == 0 and char in "?:" and code[at + 1] == " ":
            # What stood before the question mark is no text, what stood before the colon is one.
            if char == ":":
                yield text
            text = ""
        elif depth == 0 and (char.isalpha() or char == "_") and not text.endswith("…"):
            text += "…"
        at += 1
    yield text


def _goes_on(code: str, at: int) -> bool:
    return code[:at].rstrip().endswith(("+", "(")) or code[at:].lstrip().startswith(("+", "?", ":"))


def _literal(code: str, at: int) -> tuple[str, int]:
    """A literal's text, and where the code goes on after it."""
    quote, text = code[at], ""
    at += 1
    while code[at] != quote:
        if code[at] == "\\":
            text += " " if code[at + 1] == "n" else code[at + 1]
            at += 2
        elif quote == '"' and code.startswith("${", at):
            end = _closing(code, at + 2)
            name = code[at : end + 1]
            text += name if name[2:-1] in _CONSTANTS else "…"
            at = end + 1
        else:
            text += code[at]
            at += 1
    return re.sub(r"%\.\d+f|%s", "…", text).replace("%%", "%"), at + 1


def _closing(code: str, at: int) -> int:
    """Where the bracket is that closes a ${…}."""
    depth = 0
    while True:
        if code[at] in "'\"":
            _, at = _literal(code, at)
            continue
        depth += {"{": 1, "}": -1}.get(code[at], 0)
        if depth < 0:
            return at
        at += 1
