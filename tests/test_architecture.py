"""What docs/architecture.md says of the layers is what import-linter keeps."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_table_has_the_layers_of_import_linter_in_their_order() -> None:
    contracts = ConfigParser()
    contracts.read(ROOT / ".importlinter")
    layers = contracts["importlinter:contract:layers"]["layers"].split("\n")
    kept = [set(re.findall(r"hepamap\.(\w+)", layer)) for layer in layers if layer.strip()]
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", (ROOT / "docs/architecture.md").read_text("utf-8"), re.MULTILINE)
    said: dict[int, set[str]] = {}
    for number, modules in rows:
        said.setdefault(int(number), set()).update(re.findall(r"`(\w+)`", modules))
    # `exchange` and `benchmark` are a layer of their own there, and stand with those that they are above of here.
    kept[1:3] = [kept[1] | kept[2]]
    assert list(said.values()) == kept
