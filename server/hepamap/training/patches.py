"""The paper's rules for one patch: which label it gets, and whether it is used at all (pure functions).

Background and focus rules stand in `hepamap.tissue`, because detection uses them too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hepamap.tissue import BACKGROUND_SHARE

NON_TUMOUR, TUMOUR = 0, 1
"""Labels; the same numbers as the network's outputs."""
NO_LABEL = -1
"""A patch that is mixed, or lies on no annotation."""

LABEL_SHARE = 0.75
"""In training and validation, a class must cover more than this share of a patch."""
TEST_SHARE = 0.5
"""In the test split, tumour must cover more than this share; everything else is non-tumour."""


def labels_for_training(tumour_share: NDArray[np.float64], non_tumour_share: NDArray[np.float64]) -> NDArray[np.int8]:
    """Labels for training and validation: strictly more than 75 % of one class, else none.

    Args:
        tumour_share: (n,) share of each patch that is annotated as tumour.
        non_tumour_share: (n,) share that is annotated as non-tumour.

    Returns:
        (n,) of TUMOUR, NON_TUMOUR or NO_LABEL.
    """
    labels = np.full(tumour_share.shape, NO_LABEL, np.int8)
    labels[non_tumour_share > LABEL_SHARE] = NON_TUMOUR
    labels[tumour_share > LABEL_SHARE] = TUMOUR
    return labels


def labels_for_test(tumour_share: NDArray[np.float64], annotated_share: NDArray[np.float64]) -> NDArray[np.int8]:
    """Labels for testing: tumour above 50 %, else non-tumour, as long as the patch is mostly on annotated ground.

    Args:
        tumour_share: (n,) share of each patch that is annotated as tumour.
        annotated_share: (n,) share that is annotated as either class.

    Returns:
        (n,) of TUMOUR, NON_TUMOUR or NO_LABEL.
    """
    labels = np.where(tumour_share > TEST_SHARE, TUMOUR, NON_TUMOUR).astype(np.int8)
    labels[annotated_share <= TEST_SHARE] = NO_LABEL
    return labels


def is_tissue(background: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which patches are kept: those with at most 50 % background pixels; (n,) shares to (n,)."""
    return np.asarray(background <= BACKGROUND_SHARE)
