"""Synthetic slides with exact truth, for the demo, the tests and the shipped weights.

    from hepamap.phantom import PhantomSpec, write_phantom, truth_of

    spec = PhantomSpec("resection", width_um=8000, height_um=6000, mpp_x=0.2527, seed=7)
    write_phantom(spec, Path("slide.tif"), Path("truth.geojson"))
    truth_of(spec).tumour      # shapely geometry in µm

The tissue depends on kind, size in µm and seed, never on the pixel size: the same seed at 0.23 and at 0.5 µm/px is the same
tissue. `PhantomSpec.of_pixels` takes the size in px. Modules, from the bottom up:

- `spec`, `hashing`, `frame`: what to paint, randomness by place, the blocks of the world;
- `shapes`, `scene`, `truth`: outlines in µm, which are the truth;
- `style`, `textures`, `sprites`: the traits of one slide, its noises, its nuclei;
- `parenchyma`, `stroma`, `artefacts`, `painter`: one block of the world at 0.5 µm/px;
- `canvas`, `tiff`, `writer`: the slide's own pixels, the pyramid, the files.
"""

from __future__ import annotations

from hepamap.phantom.canvas import Canvas
from hepamap.phantom.spec import ARTEFACTS, Artefact, Content, Kind, PhantomSpec
from hepamap.phantom.truth import Truth, l0_from_um, truth_collection, truth_of
from hepamap.phantom.writer import write_phantom

__all__ = [
    "ARTEFACTS",
    "Artefact",
    "Canvas",
    "Content",
    "Kind",
    "PhantomSpec",
    "Truth",
    "l0_from_um",
    "truth_collection",
    "truth_of",
    "write_phantom",
]
