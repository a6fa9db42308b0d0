"""What made a result: software, model, slide, time."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from hepamap import RESEARCH_USE_ONLY, __version__
from hepamap.model_pack import ModelPack
from hepamap.slide import Slide


def software_json() -> dict[str, str]:
    """Name, version and commit of this program."""
    return {"name": "hepamap", "version": __version__, "commit": commit()}


def model_json(pack: ModelPack) -> dict[str, Any]:
    """Which network with which weights."""
    manifest = pack.manifest
    return {
        "id": manifest.id,
        "version": manifest.version,
        "backbone": manifest.network.backbone,
        "head": manifest.network.head,
        "mpp": manifest.input.mpp,
        "patch": manifest.input.patch,
        "weights_sha256": manifest.weights.sha256,
    }


def slide_json(slide: Slide) -> dict[str, Any]:
    """Which slide, and at which scale it was taken. The file's name stays out: it may hold a patient's."""
    found = slide.pixel_size_source
    bounds = slide.bounds_l0
    return {
        "fingerprint": slide.fingerprint,
        "vendor": slide.vendor,
        "width_l0": slide.size_l0.width,
        "height_l0": slide.size_l0.height,
        "bounds_l0": [bounds.x, bounds.y, bounds.width, bounds.height],
        "pixel_width_um": found.pixel_size.x_um,
        "pixel_height_um": found.pixel_size.y_um,
        "pixel_size_source": found.source,
    }


def provenance_json(
    slide: Slide, pack: ModelPack, *, mode: str, stride_m: int, region_l0: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What a map's values depend on, and when they were begun; what computed them is known at the end."""
    return {
        "notice": RESEARCH_USE_ONLY,
        "software": software_json(),
        "model": model_json(pack),
        "slide": slide_json(slide),
        "mode": mode,
        "stride_m": stride_m,
        "region_l0": region_l0,
        "resampling": "area average of the coarsest level that is fine enough",
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@cache
def commit() -> str:
    """The commit that this program was built from: `HEPAMAP_COMMIT`, else what git says of its source, else `unknown`."""
    stated = os.environ.get("HEPAMAP_COMMIT")
    if stated:
        return stated
    source = Path(__file__).resolve()
    try:
        # Installed in an environment that lies in somebody else's repository, that one's commit says nothing of this program.
        _git(source.parent, "ls-files", "--error-unmatch", source.name)
        return _git(source.parent, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*") or "unknown"
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    answer = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=5, check=True)
    return answer.stdout.strip()
