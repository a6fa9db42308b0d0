"""Exact outlines of labelled cells (pure arrays)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Directions of travel along cell edges, with the labelled cell on the right hand (y points down): +x, +y, -x, -y.
_STEPS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)], np.int64)
_CORNER_FROM_CELL = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.int64)


@dataclass(frozen=True, slots=True)
class Ring:
    """A closed outline that meets itself nowhere.

    Attributes:
        label: the labelled cells that it bounds.
        corners_cell: (N, 2) int64 x, y of its corners, in cells; the first is not repeated.
        area_cells: signed area; positive for an outer outline, negative for a hole.
    """

    label: int
    corners_cell: NDArray[np.int64]
    area_cells: float


def trace_rings(labels: NDArray[np.int32]) -> list[Ring]:
    """Outline every label; cells belong together where they share an edge.

    Args:
        labels: (rows, columns), 0 for none; each label is one part whose cells share edges.

    Returns:
        Outer outlines and holes, in the order of their topmost, leftmost edges.
    """
    start_xy, direction, label = _edges(labels)
    following = _next_edges(start_xy, direction, labels.shape[1] + 1)
    rings = []
    seen = np.zeros(len(label), bool)
    steps = following.tolist()
    for first in range(len(label)):
        if seen[first]:
            continue
        path = [first]
        edge = steps[first]
        while edge != first:
            path.append(edge)
            edge = steps[edge]
        seen[path] = True
        rings.extend(_simple_rings(int(label[first]), start_xy[path]))
    return rings


def _edges(labels: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Every cell edge between a label and something else: where it starts, which way it runs, whose it is."""
    padded = np.pad(labels, 1)
    centre = padded[1:-1, 1:-1]
    beyond = (padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2])  # above, right, below, left
    starts, directions, owners = [], [], []
    for direction, neighbour in enumerate(beyond):
        y, x = np.nonzero((centre != neighbour) & (centre != 0))
        starts.append(np.stack([x, y], axis=1) + _CORNER_FROM_CELL[direction])
        directions.append(np.full(len(x), direction, np.int64))
        owners.append(centre[y, x].astype(np.int64))
    return np.concatenate(starts), np.concatenate(directions), np.concatenate(owners)


def _next_edges(start_xy: NDArray[np.int64], direction: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """For each edge the one that goes on from its end.

    Where two cells touch at a corner only, two edges start there: the one that turns right stays with the same cell.
    """
    corner = start_xy[:, 1] * width + start_xy[:, 0]
    keys = corner * 4 + direction
    order = np.argsort(keys)
    sorted_keys = keys[order]
    end_xy = start_xy + _STEPS[direction]
    end = end_xy[:, 1] * width + end_xy[:, 0]
    following = np.full(len(keys), -1, np.int64)
    for turn in (1, 0, 3):  # right, straight on, left
        wanted = end * 4 + (direction + turn) % 4
        place = np.minimum(np.searchsorted(sorted_keys, wanted), len(keys) - 1)
        found = (sorted_keys[place] == wanted) & (following < 0)
        following[found] = order[place[found]]
    return following


def _simple_rings(label: int, vertices: NDArray[np.int64]) -> list[Ring]:
    """Split a walk at the corners that it passes twice, so that no ring touches itself."""
    pending: list[tuple[int, int]] = []
    place: dict[tuple[int, int], int] = {}
    rings = []
    for vertex in map(tuple, vertices.tolist()):
        if vertex in place:
            loop = pending[place[vertex] :]
            del pending[place[vertex] :]
            for passed in loop:
                del place[passed]
            rings.append(_ring(label, loop))
        place[vertex] = len(pending)
        pending.append(vertex)
    rings.append(_ring(label, pending))
    return rings


def _ring(label: int, vertices: list[tuple[int, int]]) -> Ring:
    points = np.asarray(vertices, np.int64)
    before, after = np.roll(points, 1, axis=0), np.roll(points, -1, axis=0)
    turns = np.any((points - before) != (after - points), axis=1)
    corners = points[turns]
    x, y = corners[:, 0], corners[:, 1]
    doubled = np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)
    return Ring(label, corners, float(doubled) / 2)
