"""What to paint: the description of one synthetic slide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hepamap.errors import ParameterError
from hepamap.geometry import PixelSize, Size

Kind = Literal["resection", "biopsy"]
Content = Literal["mixed", "liver", "tumour", "glass"]
Artefact = Literal["ink", "fold", "blur", "bubble", "pale", "black_border"]

ARTEFACTS: tuple[Artefact, ...] = ("ink", "fold", "blur", "bubble", "pale", "black_border")

# Finer than any scanner, and coarser than any model that could use the slide.
_MPP_RANGE_UM = (0.05, 20.0)
# The smallest slide that still holds a piece of each tissue.
_MIN_SIDE_UM = 400.0


@dataclass(frozen=True, slots=True)
class PhantomSpec:
    """One synthetic slide. The tissue is a function of the seed, the kind and the size in µm, never of the pixel size."""

    kind: Kind = "resection"
    width_um: float = 8000.0
    """Width of the slide, µm."""
    height_um: float = 6000.0
    """Height of the slide, µm."""
    mpp_x: float = 0.5
    """Level-0 pixel size along x, µm/px."""
    mpp_y: float | None = None
    """Level-0 pixel size along y, µm/px; that of x where None."""
    seed: int = 0
    content: Content = "mixed"
    """Which tissue lies on the slide: both, only liver, only tumour, or none at all."""
    artefacts: bool | tuple[Artefact, ...] = True
    """True: some, drawn by the seed. False: none. A tuple: exactly these."""
    stain: int | None = None
    """Seed of stain and scanner; None: the slide's own seed."""
    tumour: int | None = None
    """Seed of the architecture of both tissues, i.e. of the patient; None: the slide's own seed."""

    def __post_init__(self) -> None:
        low, high = _MPP_RANGE_UM
        if not (low <= self.mpp_x <= high and low <= self.pixel_size.y_um <= high):
            raise ParameterError(
                f"A synthetic slide cannot have a pixel of {self.mpp_x} × {self.pixel_size.y_um} µm.",
                cure=f"Give a pixel size from {low} to {high} µm.",
            )
        if min(self.width_um, self.height_um) < _MIN_SIDE_UM:
            raise ParameterError(
                f"A synthetic slide of {self.width_um:g} × {self.height_um:g} µm is too small to hold tissue.",
                cure=f"Make each side at least {_MIN_SIDE_UM:g} µm long.",
            )
        for seed in (self.seed, self.stain, self.tumour):
            if seed is not None and seed < 0:
                raise ParameterError(f"The seed {seed} is negative.", cure="Give a seed of 0 or more.")

    @classmethod
    def of_pixels(
        cls,
        width_px: int,
        height_px: int,
        *,
        kind: Kind = "resection",
        mpp_x: float = 0.5,
        mpp_y: float | None = None,
        seed: int = 0,
        content: Content = "mixed",
        artefacts: bool | tuple[Artefact, ...] = True,
        stain: int | None = None,
        tumour: int | None = None,
    ) -> PhantomSpec:
        """The slide whose level 0 has exactly this many pixels."""
        height_um = height_px * (mpp_x if mpp_y is None else mpp_y)
        return cls(kind, width_px * mpp_x, height_um, mpp_x, mpp_y, seed, content, artefacts, stain, tumour)

    @property
    def pixel_size(self) -> PixelSize:
        """Level-0 pixel size."""
        return PixelSize(self.mpp_x, self.mpp_x if self.mpp_y is None else self.mpp_y)

    @property
    def size_l0(self) -> Size:
        """Size of level 0, px."""
        return Size(max(1, round(self.width_um / self.mpp_x)), max(1, round(self.height_um / self.pixel_size.y_um)))
