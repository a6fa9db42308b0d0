"""What is asked for, by whichever way in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hepamap.geometry import PixelSize
from hepamap.model_pack import DEFAULT_MODEL

ANALYSIS = "analysis"
"""The kind of computation that a detection is in the queue, between whoever asks and the worker."""


@dataclass(frozen=True, slots=True)
class ClientView:
    """What the client's viewer says of the slide that it has open."""

    width: int
    height: int
    pixel_width_um: float | None = None
    pixel_height_um: float | None = None

    @property
    def pixel_size(self) -> PixelSize | None:
        """Level-0 pixel size, where the viewer knows both sides."""
        if self.pixel_width_um is None or self.pixel_height_um is None:
            return None
        return PixelSize(self.pixel_width_um, self.pixel_height_um)


@dataclass(frozen=True, slots=True)
class DetectionRequest:
    """What a user asks for; None means as the model says."""

    slide_path: Path
    model: str = DEFAULT_MODEL
    stride_m: int | None = None
    mode: str | None = None
    threshold: float | None = None
    min_area_um2: float | None = None
    region: Any = None
    """GeoJSON in the client's frame."""
    mpp_override_um: float | None = None
    client_view: ClientView | None = None
    frame: str | None = None
    """`level0` or `bounds`; None: as the client's view says, else level0. Refused beside a client's view."""
    fingerprint: str | None = None
    """The slide must still be this one; None: whatever lies at the path."""
    computes: str | None = None
    """The model must still be this one, see `ModelPack.computes`; None: whatever has its name."""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON, for a job's payload."""
        return {**asdict(self), "slide_path": str(self.slide_path)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DetectionRequest:
        """The opposite of `to_json`."""
        view = data["client_view"]
        client_view = None if view is None else ClientView(**view)
        return cls(**{**data, "slide_path": Path(data["slide_path"]), "client_view": client_view})
