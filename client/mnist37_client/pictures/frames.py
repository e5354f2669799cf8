"""Removal of what surrounds a picture: bars of a screenshot, a slide's frame, a scanner's lid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mnist37_client.pictures.ink import Picture

SAME = 16  # of 255: a frame's shade varies less
EVEN = 0.85  # of a row: one with as many pixels of the frame's shade belongs to it
UNLIKE = 60  # of 255, between the frame and the paper inside it
INSIDE_MIN = 0.25  # of the picture's side; what is left inside a frame is not less
SOFT = 0.01  # of what is inside: its edge is not sharp


def without_frame(grey: Picture) -> Picture | None:
    """Return what lies inside a frame of one shade around a picture; None if there is none.

    A frame may be two bars, above and below or on the left and right.
    """
    rows = _inside(grey)
    columns = _inside(grey[rows].T)
    inside = grey[rows, columns]
    if inside.shape == grey.shape or min(np.divide(inside.shape, grey.shape)) < INSIDE_MIN:
        return None
    return inside


def _inside(grey: Picture) -> slice:
    """Return the rows between bars above and below, or all rows."""
    shade = np.median(np.concatenate([grey[0], grey[-1]]))
    framed = (np.abs(grey - shade) < SAME).mean(axis=1) > EVEN
    begin, end = _longest_run(~framed)
    if end - begin in (0, len(grey)) or abs(np.median(grey[begin:end]) - shade) < UNLIKE:
        return slice(0, len(grey))
    soft = round(SOFT * (end - begin)) + 1
    return slice(begin + soft, max(end - soft, begin + soft + 1))


def _longest_run(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Return where the longest run of set values begins and ends, exclusive."""
    padded = np.concatenate([[0], mask.astype(np.int8), [0]])
    changes = np.diff(padded)
    begins, ends = np.flatnonzero(changes == 1), np.flatnonzero(changes == -1)
    if not len(begins):
        return 0, 0
    longest = int((ends - begins).argmax())
    return int(begins[longest]), int(ends[longest])
