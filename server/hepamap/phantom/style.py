"""What differs from slide to slide: architecture of both tissues, stain and scanner."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hepamap.phantom.hashing import generator
from hepamap.phantom.spec import PhantomSpec

LIVER_SALT, TUMOUR_SALT = 1, 2

# Rim, nucleolus and the spread of sizes make nuclei hold this much more stain than a plain disc.
_SPRITE_STAIN = 1.2


@dataclass(frozen=True)
class Architecture:
    """How one tissue of one slide is built. Lengths in µm; stain in units of one dense nucleus."""

    salt: int
    """Tells the random lattices of the two tissues apart."""
    plate_um: float
    """Distance from sinusoid to sinusoid."""
    gap_um: float
    """Width of a sinusoid."""
    crosslink: float
    """Width of the cross-connections, as a share of the sinusoid's."""
    cell_um: float
    """Distance of neighbouring cells."""
    nucleus_um: float
    """Mean diameter of a nucleus."""
    nucleus_spread: float
    """Standard deviation of the diameter, as a share of it."""
    irregularity: float
    """Roughness of a nucleus' outline."""
    nucleus_stain: float
    """Haematoxylin of a nucleus."""
    nucleus_contrast: float
    """Standard deviation of haematoxylin from nucleus to nucleus, as a share of it."""
    clearing: float
    """How much of the cytoplasm's eosin a nucleus displaces."""
    cytoplasm_h: float
    """Haematoxylin of cytoplasm."""
    cytoplasm_e: float
    """Eosin of cytoplasm."""
    cell_contrast: float
    """Standard deviation of the cytoplasm's shade from cell to cell."""
    membrane: float
    """How far cell borders stand out, in eosin."""
    lining: float
    """Share of the places along a sinusoid that hold a lining cell."""
    blood: float
    """How full of red cells sinusoids are, 0 to 1."""
    fat: float
    """Share of the cells with a fat vacuole where there is most fat."""
    fat_um: float
    """Typical diameter of a vacuole."""
    septum_um: float
    """Width of fibrous septa; 0 where there are none."""
    glands: float
    """Share of the places that hold a pseudogland."""


@dataclass(frozen=True)
class Stain:
    """Colour of one slide and the traits of its scanner."""

    haematoxylin: NDArray[np.float32]
    """Optical density of haematoxylin at concentration 1, per R, G, B."""
    eosin: NDArray[np.float32]
    """Optical density of eosin at concentration 1, per R, G, B."""
    white: NDArray[np.float32]
    """R, G, B of blank glass."""
    strength: float
    """Factor on all concentrations (thickness of the section)."""
    shade_h: float
    """Amplitude of regional changes of haematoxylin."""
    shade_e: float
    """Amplitude of regional changes of eosin."""
    blur_um: float
    """Standard deviation of the scanner's blur, µm."""
    sharpening: float
    """Amount of the scanner's unsharp mask."""
    noise: float
    """Standard deviation of pixel noise, grey levels."""


@dataclass(frozen=True)
class _Balance:
    """What both tissues of a slide have in common, so that colour does not tell them apart."""

    open_share: float
    """Share of the area that sinusoids take."""
    fat_share: float
    """Share of the area that fat takes where there is most of it."""
    mean_h: float
    """Mean haematoxylin, nuclei included."""
    mean_e: float
    """Mean eosin."""
    blood: float

    @classmethod
    def of(cls, seed: int) -> _Balance:
        """The common traits of a slide."""
        rng = generator(seed, 30)
        return cls(
            open_share=rng.uniform(0.09, 0.18),
            fat_share=max(0.0, rng.uniform(-0.12, 0.16)),
            mean_h=rng.uniform(0.20, 0.26),
            mean_e=rng.uniform(0.19, 0.27),
            blood=float(rng.uniform(0, 0.6) ** 2),
        )


def liver(seed: int) -> Architecture:
    """Plates of one or two cells between many sinusoids; small, round, even nuclei."""
    rng = generator(seed, 31)
    return _balanced(
        _Balance.of(seed),
        rng,
        salt=LIVER_SALT,
        plate_um=rng.uniform(24, 31),
        cell_um=rng.uniform(18.5, 22.0),
        nucleus_um=rng.uniform(6.8, 8.0),
        nucleus_spread=rng.uniform(0.05, 0.10),
        irregularity=0.015,
        nucleus_stain=rng.uniform(0.72, 1.12),
        nucleus_contrast=0.08,
        clearing=rng.uniform(0.55, 0.85),
        fat_um=rng.uniform(9, 16),
        septum_um=max(0.0, rng.uniform(-40, 36)),
        glands=0.0,
        open_factor=rng.uniform(0.72, 1.02),
        h_factor=rng.uniform(0.95, 1.2),
        e_factor=rng.uniform(0.96, 1.10),
        crosslink=rng.uniform(0.6, 1.0),
        cell_contrast=rng.uniform(0.08, 0.20),
    )


def carcinoma(seed: int) -> Architecture:
    """Trabeculae many cells thick between few, wide sinusoids; large, crowded, uneven nuclei."""
    rng = generator(seed, 32)
    cell_um = rng.uniform(13.0, 15.5)
    return _balanced(
        _Balance.of(seed),
        rng,
        salt=TUMOUR_SALT,
        plate_um=rng.uniform(75, 140),
        cell_um=cell_um,
        nucleus_um=cell_um * rng.uniform(0.62, 0.72),
        nucleus_spread=rng.uniform(0.12, 0.20),
        irregularity=rng.uniform(0.025, 0.05),
        nucleus_stain=rng.uniform(0.28, 0.49),
        nucleus_contrast=rng.uniform(0.12, 0.28),
        clearing=rng.uniform(0.0, 0.35),
        fat_um=rng.uniform(8, 14),
        septum_um=max(0.0, rng.uniform(-40, 36)),
        glands=max(0.0, rng.uniform(-0.3, 0.3)),
        open_factor=rng.uniform(0.68, 0.98),
        h_factor=rng.uniform(0.82, 1.07),
        e_factor=rng.uniform(0.88, 1.02),
        crosslink=rng.uniform(0.3, 0.7),
        cell_contrast=rng.uniform(0.15, 0.31),
    )


def _balanced(
    balance: _Balance,
    rng: np.random.Generator,
    *,
    salt: int,
    plate_um: float,
    cell_um: float,
    nucleus_um: float,
    nucleus_spread: float,
    irregularity: float,
    nucleus_stain: float,
    nucleus_contrast: float,
    clearing: float,
    open_factor: float,
    h_factor: float,
    e_factor: float,
    cell_contrast: float,
    crosslink: float,
    fat_um: float,
    septum_um: float,
    glands: float,
) -> Architecture:
    """An architecture whose mean stain is the slide's: crowded nuclei are paid for by paler cytoplasm."""
    cell_area_um2 = math.sqrt(0.75) * cell_um**2
    nuclear_share = math.pi / 4 * nucleus_um**2 / cell_area_um2
    fat_cell_share = math.pi / 4 * fat_um**2 / cell_area_um2
    solid_share = 1 - balance.open_share
    cytoplasm_h = balance.mean_h / solid_share - _SPRITE_STAIN * nuclear_share * nucleus_stain
    return Architecture(
        salt=salt,
        plate_um=plate_um,
        gap_um=plate_um * balance.open_share * open_factor,
        crosslink=crosslink,
        cell_um=cell_um,
        nucleus_um=nucleus_um,
        nucleus_spread=nucleus_spread,
        irregularity=irregularity,
        nucleus_stain=nucleus_stain,
        nucleus_contrast=nucleus_contrast,
        clearing=clearing,
        cytoplasm_h=max(0.02, cytoplasm_h) * h_factor,
        cytoplasm_e=balance.mean_e / (solid_share * (1 - clearing * nuclear_share)) * e_factor,
        cell_contrast=cell_contrast,
        membrane=rng.uniform(0.02, 0.08),
        lining=rng.uniform(0.3, 0.5),
        blood=balance.blood,
        fat=balance.fat_share / fat_cell_share * rng.uniform(0.8, 1.2),
        fat_um=fat_um,
        septum_um=septum_um,
        glands=glands,
    )


def stain_of(spec: PhantomSpec) -> Stain:
    """Stain and scanner of a slide."""
    rng = generator(spec.seed if spec.stain is None else spec.stain, 33)
    haematoxylin = np.array([0.56, 0.74, 0.34]) + rng.normal(0, [0.05, 0.03, 0.04])
    eosin = np.array([0.16, 0.84, 0.48]) + rng.normal(0, [0.03, 0.05, 0.08])
    return Stain(
        haematoxylin=(haematoxylin * rng.uniform(0.85, 1.15)).astype(np.float32),
        eosin=(eosin * rng.uniform(0.75, 1.2)).astype(np.float32),
        white=(rng.uniform(234, 248) + rng.normal(0, 2.5, 3)).clip(226, 252).astype(np.float32),
        strength=rng.uniform(0.88, 1.2),
        shade_h=rng.uniform(0.06, 0.18),
        shade_e=rng.uniform(0.06, 0.18),
        blur_um=rng.uniform(0.2, 0.7),
        sharpening=rng.uniform(0.0, 0.5),
        noise=rng.uniform(0.8, 3.0),
    )
