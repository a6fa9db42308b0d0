"""The ways to fill a probability map: each patch alone (the paper's), dense (the convolutions shared by all), every pixel."""

from __future__ import annotations

from hepamap.maps.dense import fill_dense, require_dense_stride
from hepamap.maps.overview import possible_tissue
from hepamap.maps.patchwise import fill_patchwise
from hepamap.maps.run import Checkpoint, DenseNetwork, PatchNetwork, Piece, Progress, Run, ignore_progress, never_cancelled
from hepamap.maps.segment import fill_segment, require_segment_stride

__all__ = [
    "Checkpoint",
    "DenseNetwork",
    "PatchNetwork",
    "Piece",
    "Progress",
    "Run",
    "fill_dense",
    "fill_patchwise",
    "fill_segment",
    "ignore_progress",
    "never_cancelled",
    "possible_tissue",
    "require_dense_stride",
    "require_segment_stride",
]
