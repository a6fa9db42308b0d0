"""Pixels in, tumour probabilities out: the only package of the serving path that imports keras (when a network is loaded)."""

from __future__ import annotations

from hepamap.predictor.backend import PRECISIONS, start_backend
from hepamap.predictor.lane_feed import LaneFeed
from hepamap.predictor.predictor import Predictor

__all__ = ["PRECISIONS", "LaneFeed", "Predictor", "start_backend"]
