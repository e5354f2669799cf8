"""Printed lines: rules, squares, margins and frames, which are straight, thin and long."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mnist37_client.pictures.ink import Picture
from mnist37_client.pictures.pieces import Mask, find_runs

SLOPES = np.tan(np.radians(np.arange(-12, 12.01, 0.5)))
COVERED = 0.5  # of the picture's width: a line of this length is none of a digit's strokes
THICK = 0.025  # of the picture's longer side: a thicker line is a stroke
STRIP = 2  # times as long as wide: in a longer strip, a line across it is as thin as it is short
BIN = 3  # pixels across a line within which its points may lie
CROSSING = 1.45  # where there is this much more ink than in the line, a stroke crosses it


def remove_lines(ink: Picture, mask: Mask) -> Mask:
    """Return the mask without its long lines; strokes that cross them stay."""
    removed = _lines_across(ink, mask) | _lines_across(ink.T, mask.T).T
    return mask & ~removed


def _lines_across(ink: Picture, mask: Mask) -> Mask:
    """Return the pixels of the lines that run from left to right."""
    height, width = mask.shape
    lines = np.zeros_like(mask)
    columns, begins, ends = find_runs(mask.T)
    thin = ends - begins <= max(3, THICK * min(max(height, width), STRIP * width))
    columns, begins, ends = columns[thin], begins[thin], ends[thin]
    if len(columns) < COVERED * width:
        return lines
    middles = (begins + ends - 1) / 2
    places, heights = _best_direction(columns - width / 2, middles, width)
    for place in places:
        near = np.abs(heights - place) <= BIN
        found = np.flatnonzero(near)
        if len(np.unique(columns[found])) < COVERED * width:
            continue
        thickness = np.median(ends[found] - begins[found])
        level = np.median(ink[np.rint(middles[found]).astype(int), columns[found]])
        for one in found:
            rows = slice(begins[one], ends[one])
            if ends[one] - begins[one] <= 1.6 * thickness + 1:
                lines[rows, columns[one]] = ink[rows, columns[one]] < CROSSING * level
    return lines


def _best_direction(
    columns: NDArray[np.float64], middles: NDArray[np.float64], width: int
) -> tuple[list[float], NDArray[np.float64]]:
    """Return where lines lie, and each point's height, along the direction with most of them."""
    best, chosen = -1.0, middles
    places: list[float] = []
    for slope in SLOPES:
        heights = middles - slope * columns
        offset = heights.min()
        counts = np.bincount(((heights - offset) / BIN).astype(int), minlength=2)
        pairs = counts[:-1] + counts[1:]
        full = pairs >= COVERED * width
        score = float(np.square(pairs[full].astype(float)).sum())
        if score > best:
            best, chosen = score, heights
            places = [offset + BIN * (int(place) + 1) for place in np.flatnonzero(full)]
    return places, chosen
