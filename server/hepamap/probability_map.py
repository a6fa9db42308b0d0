"""The probability map: values and their place on the slide, as one value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepamap.errors import ResultDamagedError
from hepamap.geometry import Grid, Lattice, PixelSize

VALUES_NAME = "probability-map.npy"
PLACE_NAME = "probability-map.json"

_OF_PATCH = "Tumour probability of the patch centred on each cell"
_MEANING = {"patch": _OF_PATCH, "dense": _OF_PATCH, "segment": "Mean tumour probability of the pixels of each cell"}


@dataclass(frozen=True, slots=True)
class ProbabilityMap:
    """Tumour probability per cell of a lattice.

    Attributes:
        values: (rows, columns) float32, 0 to 1; NaN where there is no data (background, outside the region).
        lattice: where the cells lie on the slide.
        provenance: what made it: software, model, slide, parameters.
    """

    values: NDArray[np.float32]
    lattice: Lattice
    provenance: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.values.shape != (self.lattice.rows, self.lattice.columns):
            raise ValueError(f"values {self.values.shape} do not fit the lattice {self.lattice.rows} × {self.lattice.columns}")

    @property
    def tissue_cells(self) -> int:
        """Cells with data."""
        return int(np.isfinite(self.values).sum())

    @property
    def tissue_area_um2(self) -> float:
        """Area of the cells with data, µm²."""
        return self.tissue_cells * self.lattice.cell_area_um2

    def save(self, folder: Path) -> None:
        """Write `probability-map.npy` and `probability-map.json` into a folder."""
        np.save(folder / VALUES_NAME, self.values, allow_pickle=False)
        text = json.dumps(self.place_json(), indent=2, ensure_ascii=False) + "\n"
        (folder / PLACE_NAME).write_text(text, encoding="utf-8")

    def place_json(self) -> dict[str, Any]:
        """Lattice and provenance, for `probability-map.json`."""
        lattice = self.lattice
        return {
            "lattice": asdict(lattice),
            "origin_l0": asdict(lattice.origin_l0),
            "cell_size_l0": asdict(lattice.cell_size_l0),
            "no_data": "NaN",
            "meaning": f"{_MEANING[self.provenance['mode']]}; row 0 is the upper edge.",
            "provenance": dict(self.provenance),
        }

    @classmethod
    def open(cls, folder: Path) -> ProbabilityMap:
        """Read a map that `save` wrote.

        Raises:
            ResultDamagedError: a file is missing, cut short, or the two do not fit together.
        """
        try:
            place = json.loads((folder / PLACE_NAME).read_text(encoding="utf-8"))
            with (folder / VALUES_NAME).open("rb") as file:
                values = np.lib.format.read_array(file, allow_pickle=False)
            return cls(np.asarray(values, np.float32), _lattice_from_json(place["lattice"]), place["provenance"])
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise ResultDamagedError(
                f"The probability map in {folder.name} cannot be read: {type(error).__name__}.",
                cure="Run the analysis again.",
            ) from error


def _lattice_from_json(data: Mapping[str, Any]) -> Lattice:
    grid = dict(data["grid"])
    pixel_size = PixelSize(**grid.pop("pixel_size"))
    own = {key: value for key, value in data.items() if key != "grid"}
    return Lattice(grid=Grid(pixel_size=pixel_size, **grid), **own)
