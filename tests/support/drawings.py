"""Drawings for the pad: a 3 and a 7 by formulas, and strokes along the lines of MNIST's images."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Point: TypeAlias = tuple[float, float]  # x and y in units of the pad's side
Stroke: TypeAlias = list[Point]
Drawing: TypeAlias = list[Stroke]
Digit: TypeAlias = NDArray[np.uint8]  # (28, 28)

TIMES = 4  # pixels of a thinned image for one of MNIST's
SHORT = 3 * TIMES  # pixels; a branch of a line that is shorter is no stroke
NEIGHBOURS = [(-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1)]


def three() -> Drawing:
    """Return a 3 in one stroke."""
    upper = arc((0.5, 0.34), (0.16, 0.14), -2.4, math.pi + 1.6)
    lower = arc((0.5, 0.64), (0.18, 0.17), -1.6, math.pi + 1.2)
    return [upper + lower]


def seven() -> Drawing:
    """Return a 7 in two strokes: the line, and the bar across it."""
    return [[*line((0.3, 0.25), (0.7, 0.25)), *line((0.7, 0.25), (0.42, 0.8))],
            line((0.42, 0.52), (0.66, 0.52))]  # fmt: skip


def arc(centre: Point, radii: Point, start: float, length: float, count: int = 24) -> Stroke:
    """Return points on a part of an ellipse; angles in radians."""
    angles = [start + length * number / count for number in range(count + 1)]
    return [
        (centre[0] + radii[0] * math.cos(a), centre[1] + radii[1] * math.sin(a)) for a in angles
    ]


def line(start: Point, end: Point, count: int = 12) -> Stroke:
    """Return points on a straight line."""
    shares = [number / count for number in range(count + 1)]
    return [
        (start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1]))
        for share in shares
    ]


def placed(drawing: Drawing, size: float, x: float, y: float) -> Drawing:
    """Return a drawing whose box has a longer side of `size` and its upper left corner at x, y."""
    points = [point for stroke in drawing for point in stroke]
    (left, right), (top, bottom) = (
        (min(p[axis] for p in points), max(p[axis] for p in points)) for axis in (0, 1)
    )
    scale = size / max(right - left, bottom - top)
    return [
        [(x + (px - left) * scale, y + (py - top) * scale) for px, py in stroke]
        for stroke in drawing
    ]


def picture(drawing: Drawing, pen: float, side: int = 280) -> Digit:
    """Return a picture of a drawing, as the pad shows it: white lines on black.

    Args:
        drawing: the strokes.
        pen: the lines' width, in units of the pad's side.
        side: of the picture, in pixels.
    """
    times = 2  # drawn larger, so that the edges are smooth
    image = Image.new("L", (side * times, side * times))
    draw = ImageDraw.Draw(image)
    width = pen * side * times
    for stroke in drawing:
        points = [(x * side * times, y * side * times) for x, y in stroke]
        draw.line(points, fill=255, width=round(width), joint="curve")
        for x, y in points:
            draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=255)
    return np.asarray(image.resize((side, side), Image.Resampling.BOX))


def strokes_of(digit: Digit) -> Drawing:
    """Return strokes along the lines of an image, in units of its side."""
    large = Image.fromarray(digit).resize((28 * TIMES, 28 * TIMES), Image.Resampling.BICUBIC)
    lines = walk(thin(np.asarray(large) > 110))
    long = [stroke for stroke in lines if len(stroke) >= SHORT] or lines[:1]
    side = 28 * TIMES
    return [[(column / side, row / side) for row, column in stroke] for stroke in long]


def thin(ink: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return lines of one pixel's width, by the algorithm of Zhang and Suen (1984)."""
    ink = np.pad(ink, 1)
    changed = True
    while changed:
        changed = False
        for first in (True, False):
            p = [np.roll(ink, (-row, -column), (0, 1)) for row, column in NEIGHBOURS]
            count = sum(q.astype(int) for q in p)
            turns = sum((~p[i] & p[(i + 1) % 8]).astype(int) for i in range(8))
            north, east, south, west = p[0], p[2], p[4], p[6]
            if first:
                sides = ~(north & east & south) & ~(east & south & west)
            else:
                sides = ~(north & east & west) & ~(north & south & west)
            removed = ink & (count >= 2) & (count <= 6) & (turns == 1) & sides
            ink = ink & ~removed
            changed = changed or bool(removed.any())
    return ink[1:-1, 1:-1]


def walk(lines: NDArray[np.bool_]) -> list[list[tuple[int, int]]]:
    """Return paths over all pixels of lines, the longest first; a path goes on straight if it can.

    Each path is a list of rows and columns. A later path begins beside an earlier one.
    """
    free = {(int(row), int(column)) for row, column in np.argwhere(lines)}
    paths = []
    while free:
        ends = [pixel for pixel in free if len(beside(pixel, free)) == 1]
        pixel = min(ends or free)
        path, direction = [], (1, 0)
        while True:
            path.append(pixel)
            free.discard(pixel)
            options = beside(pixel, free)
            if not options:
                break
            row, column = pixel
            straightness = {
                option: (option[0] - row) * direction[0] + (option[1] - column) * direction[1]
                for option in options
            }
            pixel = max(sorted(options), key=straightness.__getitem__)
            earlier = path[max(0, len(path) - 2 * TIMES)]
            direction = pixel[0] - earlier[0], pixel[1] - earlier[1]
        paths.append(path)
    return sorted(paths, key=len, reverse=True)


def beside(pixel: tuple[int, int], free: set[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the free neighbours of a pixel."""
    row, column = pixel
    around = [(row + down, column + right) for down, right in NEIGHBOURS]
    return [neighbour for neighbour in around if neighbour in free]
