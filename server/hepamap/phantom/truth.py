"""The exact truth of a synthetic slide.

Necrosis inside a tumour counts as tumour, as in the coarse outlines that pathologists draw. A capsule counts as liver.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry

from hepamap.geometry import PixelSize
from hepamap.phantom.scene import build_scene
from hepamap.phantom.shapes import polygons_only
from hepamap.phantom.spec import PhantomSpec

TUMOUR_CLASS, LIVER_CLASS = "Tumor", "Non-tumor"
_COLOURS = {TUMOUR_CLASS: [200, 0, 0], LIVER_CLASS: [0, 128, 0]}
_STEP_L0 = 0.01


@dataclass(frozen=True)
class Truth:
    """Outlines of the tissues, polygons or multipolygons in µm from the slide's level-0 corner."""

    tumour: BaseGeometry
    liver: BaseGeometry

    @property
    def tissue(self) -> BaseGeometry:
        """Both together."""
        return shapely.union(self.tumour, self.liver)


def truth_of(spec: PhantomSpec) -> Truth:
    """The truth of a slide, without painting it."""
    scene = build_scene(spec)
    return Truth(scene.tumour, scene.liver)


def l0_from_um(geometry: BaseGeometry, pixel_size: PixelSize) -> BaseGeometry:
    """A geometry in µm, in level-0 px."""
    return shapely.transform(geometry, lambda xy: np.asarray(xy / [pixel_size.x_um, pixel_size.y_um]))


def truth_collection(spec: PhantomSpec) -> dict[str, Any]:
    """The truth as QuPath reads it: a FeatureCollection in level-0 px.

    A resection has both classes; a biopsy, as in the study that this follows, has tumour only.
    """
    truth = truth_of(spec)
    classes = [(TUMOUR_CLASS, truth.tumour)]
    if spec.kind == "resection":
        classes.append((LIVER_CLASS, truth.liver))
    features = [_feature(name, part) for name, geometry in classes for part in _parts_l0(geometry, spec.pixel_size)]
    return {"type": "FeatureCollection", "features": features}


def write_truth(spec: PhantomSpec, path: Path) -> None:
    """Write `truth_collection` as a file."""
    path.write_text(json.dumps(truth_collection(spec), separators=(",", ":")), encoding="utf-8")


def _parts_l0(geometry: BaseGeometry, pixel_size: PixelSize) -> list[BaseGeometry]:
    """The polygons of a geometry (µm) in level-0 px, rounded to a hundredth, valid."""
    whole = shapely.get_parts(polygons_only(_rounded(l0_from_um(geometry, pixel_size))))
    return [part for part in whole if not part.is_empty]


def _rounded(geometry: BaseGeometry) -> BaseGeometry:
    """Coordinates to a hundredth."""
    try:
        return shapely.set_precision(geometry, _STEP_L0)
    except shapely.errors.GEOSException:  # the change of scale has let an outline cross itself where it nearly touched
        return shapely.set_precision(shapely.make_valid(geometry, method="structure"), _STEP_L0)


def _feature(name: str, polygon: BaseGeometry) -> dict[str, Any]:
    """One annotation."""
    return {
        "type": "Feature",
        "geometry": mapping(polygon),
        "properties": {"objectType": "annotation", "classification": {"name": name, "color": _COLOURS[name]}},
    }
