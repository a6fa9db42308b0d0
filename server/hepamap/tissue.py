"""Background, tissue and focus rules (pure arrays; paper, section Patches)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

BACKGROUND_MEAN_RGB = 200
"""A pixel whose mean of R, G and B is above this is background."""
BLACK_MAX_RGB = 24
"""A pixel with no channel above this is background, too: what a scanner did not see, or a cover. Stains let more through."""
BACKGROUND_SHARE = 0.5
"""A patch with more than this share of background pixels is background."""
FOCUS_MIN_EDGES = 20.0
"""A patch whose sum of detected edges is under this is out of focus."""

_EDGE_MIN_RESPONSE = 48  # Laplacian response (0-255 grey levels) from which a pixel counts as an edge, not as noise


def is_background_pixel(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which pixels are background: the mean of R, G and B above 200 (paper), or black.

    Args:
        rgb: (H, W, 3).

    Returns:
        (H, W), True on background.
    """
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    # The sum against three times the limit: exact in whole numbers, where a mean would be rounded.
    light = np.add(red, green, dtype=np.uint16)
    light += blue
    brightest = np.maximum(np.maximum(red, green), blue)
    return np.asarray((light > 3 * BACKGROUND_MEAN_RGB) | (brightest <= BLACK_MAX_RGB))


def tissue_patches(rgb: NDArray[np.uint8], patch_m: int, stride_m: int) -> NDArray[np.bool_]:
    """Which overlapping patches of a field are tissue, i.e. have at most 50 % background pixels.

    Args:
        rgb: (H, W, 3), a field of model pixels that begins at the first patch's corner.
        patch_m: patch side, px.
        stride_m: step between patches, px.

    Returns:
        ((H - patch) // stride + 1, (W - patch) // stride + 1), True where the patch is tissue.
    """
    counts = cv2.integral(is_background_pixel(rgb).astype(np.uint8), sdepth=cv2.CV_32S)
    top_left = counts[: -patch_m or None : stride_m, : -patch_m or None : stride_m]
    top_right = counts[: -patch_m or None : stride_m, patch_m::stride_m]
    bottom_left = counts[patch_m::stride_m, : -patch_m or None : stride_m]
    bottom_right = counts[patch_m::stride_m, patch_m::stride_m]
    background = bottom_right - top_right - bottom_left + top_left
    return np.asarray(background <= BACKGROUND_SHARE * patch_m * patch_m)


def background_counts(rgb: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Background pixels in each stretch of `side` pixels of a row.

    Args:
        rgb: (H, W, 3); W a multiple of `side`.
        side: 1 to 255.

    Returns:
        (H, W / side), 0 to `side`.
    """
    height, width = rgb.shape[:2]
    return np.asarray(is_background_pixel(rgb).reshape(height, width // side, side).sum(axis=-1, dtype=np.uint8))


def tissue_from_counts(counts: NDArray[np.uint8], side: int, patch_m: int) -> NDArray[np.bool_]:
    """The rule of `tissue_patches` for patches that begin at multiples of `side`, from `background_counts`.

    Args:
        counts: (rows · side, columns), background pixels in stretches of `side`.
        side: px; divides the patch side.
        patch_m: patch side, px.

    Returns:
        (rows - n + 1, columns - n + 1), True where the patch is tissue; n = patch / side.
    """
    squares = counts.reshape(len(counts) // side, side, -1).sum(axis=1, dtype=np.int64)
    n = patch_m // side
    background = np.lib.stride_tricks.sliding_window_view(squares, (n, n)).sum(axis=(2, 3))
    return np.asarray(background <= BACKGROUND_SHARE * patch_m * patch_m)


def focus_score(rgb: NDArray[np.uint8]) -> float:
    """Sum of detected edges in a patch (H, W, 3): pixels with a strong Laplacian response, each counted as 1.

    The paper drops patches with a sum under 20 and does not say how its Laplacian is scaled; here an edge is a response
    of at least 48 grey levels (kernel of 4 neighbours), which noise does not reach and a nucleus' rim in focus does.
    """
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    response = np.abs(cv2.Laplacian(grey, cv2.CV_16S, ksize=1))
    return float((response >= _EDGE_MIN_RESPONSE).sum())
