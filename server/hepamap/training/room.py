"""Whether the state of a training fits on the disk, asked before the first step."""

from __future__ import annotations

import shutil
from pathlib import Path

from hepamap.errors import OutputNotWritableError
from hepamap.folders import nearest_existing
from hepamap.networks import PIXELS

# Parameters of VGG16's convolutions with batch normalisation; what FC512 adds, and adds for each px² of the last block; what the
# ways up of U-Net and FCN add at most.
_BACKBONE_PARAMETERS = 14_800_000
_FC512_PARAMETERS, _FC512_PARAMETERS_PER_PX2 = 2_200_000, 512 * 4096
_PIXELS_PARAMETERS = 4_000_000
_COPIES = 8  # weights, two moments of Adam and the best weights, each beside the file that it replaces
_SPARE_BYTES = 50_000_000


def require_room(folder: Path, head: str, patch_m: int) -> None:
    """Check that the state of a training fits on the disk.

    Args:
        folder: where it is kept; it need not be there.
        head: the network's.
        patch_m: side of a patch, model px.

    Raises:
        OutputNotWritableError: it does not.
    """
    needed, free = 4 * _COPIES * _parameters(head, patch_m) + _SPARE_BYTES, shutil.disk_usage(nearest_existing(folder)).free
    if needed > free:
        raise OutputNotWritableError(
            f"A training may need {needed / 1e9:.1f} GB for its state, but {free / 1e9:.1f} GB are free.",
            cure="Free space, or name a folder on a larger disk.",
        )


def _parameters(head: str, patch_m: int) -> int:
    if head == "GAP":
        return _BACKBONE_PARAMETERS
    if head == PIXELS:
        return _BACKBONE_PARAMETERS + _PIXELS_PARAMETERS
    return _BACKBONE_PARAMETERS + _FC512_PARAMETERS + _FC512_PARAMETERS_PER_PX2 * (patch_m // 32) ** 2
