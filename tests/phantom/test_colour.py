"""Liver and carcinoma differ in architecture, not in colour."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hepamap.phantom import Content, PhantomSpec
from hepamap.phantom.painter import Painter

SLIDES = 12
# 117.5 µm at 0.5 µm/px: four patches side by side fill most of a block.
PATCH_PX = 235
CONTENTS: tuple[Content, Content] = ("liver", "tumour")

Patches = tuple[list[NDArray[np.uint8]], NDArray[np.int64], NDArray[np.int64]]


@pytest.fixture(scope="module")
def patches() -> Patches:
    """Patches, whether each is tumour, and the slide that it is from."""
    pictures, labels, slides = [], [], []
    for slide in range(SLIDES):
        for label, content in enumerate(CONTENTS):
            spec = PhantomSpec("resection", 2400, 2400, 0.5, seed=500 + slide, content=content, artefacts=False)
            block = Painter(spec).block(2, 2)
            assert block is not None
            for index in range(16):
                y, x = np.array(divmod(index, 4)) * PATCH_PX
                pictures.append(block[y : y + PATCH_PX, x : x + PATCH_PX])
                labels.append(label)
                slides.append(slide)
    return pictures, np.array(labels), np.array(slides)


@pytest.mark.parametrize("side_px", [PATCH_PX, 128, 64], ids=["full", "10X", "5X"])
def test_colour_statistics_do_not_tell_the_tissues_apart(patches: Patches, side_px: int) -> None:
    seen = [cv2.resize(patch, (side_px, side_px), interpolation=cv2.INTER_AREA).reshape(-1, 3) for patch in patches[0]]
    features = np.array([np.concatenate([pixels.mean(axis=0), pixels.std(axis=0)]) for pixels in seen])
    assert _auc(features, patches) < 0.65


def test_architecture_does(patches: Patches) -> None:
    features = np.array([_spectrum(p) for p in patches[0]])
    assert _auc(features, patches) > 0.85


def _spectrum(patch: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Logarithm of the power per band of spatial frequency, of the standardised brightness: blind to colour."""
    grey = patch.mean(axis=2)
    grey = (grey - grey.mean()) / grey.std() * np.outer(np.hanning(PATCH_PX), np.hanning(PATCH_PX))
    power = np.abs(np.fft.rfft2(grey)) ** 2
    cycles = np.hypot(np.fft.fftfreq(PATCH_PX)[:, None], np.fft.rfftfreq(PATCH_PX)[None, :]) * PATCH_PX
    return np.array([np.log(power[(cycles >= low) & (cycles < low + 2)].mean()) for low in range(1, 29, 2)])


def _auc(features: NDArray[np.float64], patches: Patches) -> float:
    """Area under the ROC curve of a logistic regression on slides that it has not seen."""
    _, labels, slides = patches
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    chance = cross_val_predict(model, features, labels, groups=slides, cv=GroupKFold(4), method="predict_proba")
    return float(roc_auc_score(labels, chance[:, 1]))
