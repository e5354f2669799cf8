"""The digit among all the ink in a picture: the pieces that make one digit, or the reason for none.

A digit is thin strokes of one strength, of a size that a person would write, and lies inside the
picture. A table's edge is thick and lies along the border; a speck or a time stamp is small; a
frame follows its own box.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image, ImageFilter

from mnist37_client.errors import InvalidInput
from mnist37_client.pictures.ink import Picture
from mnist37_client.pictures.lines import remove_lines
from mnist37_client.pictures.normal import stroke_width
from mnist37_client.pictures.pieces import Mask, Pieces, find_pieces

LEVELS = (0.5, 0.35, 0.24, 0.16, 0.11, 0.075)  # of ink; the digit shows best at one of them
NOISE_FACTOR = 5  # ink fainter than this many times the noise is noise
SIZE_MIN = 0.09  # of the picture's shorter side
LARGE = 0.5  # of the picture's shorter side: a piece that is larger is no better for it
EDGE_CONTACT = 0.6  # of a piece's size along the border: a table or a shadow, no cropped stroke
SOLID = 0.42  # of a piece's size: a stroke as wide is a blot
NARROW = 0.13  # of a piece's size: a shape as narrow is a line
EDGE_SHARP = 4.5  # pixels from ink to paper, or half of the stroke's width
STRONG = 0.5  # of ink: no shadow and no crease is as dark
NEAR = 0.3  # of the digit's size: pieces nearer belong to it
BROKEN = 0.5  # of the digit's size: a stroke nearer that is no digit alone belongs to it
FLAT = 0.35  # of a piece's size: a lower piece is a stroke lying down, not a digit
SECOND = 0.5  # of the digit's size: a piece as large elsewhere is a second digit
TALL = 0.6  # of all pieces' height: two as tall, side by side, are two digits
PIECES_MAX = 60  # that are looked at, the largest first


class NoStroke(InvalidInput):
    """A refusal of a picture in which nothing looks like a stroke of a pen."""


@dataclass(frozen=True)
class _Candidate:
    pieces: Pieces
    number: int
    strength: float  # of its ink
    score: float


def find_digit(ink: Picture, noise: float, *, drawing: bool) -> Picture:
    """Return the digit's ink alone, 0 to 1.

    A drawing of few pixels may fill its picture; in a larger picture, a digit at the border is
    cropped.

    Raises:
        NoStroke: there is no digit.
        InvalidInput: there is more than one, or only part of one.
    """
    candidates = []
    for level in LEVELS:
        if level < NOISE_FACTOR * noise:
            break
        candidate = _best(ink, remove_lines(ink, ink > level), level, drawing=drawing)
        if candidate:
            candidates.append(candidate)
    if not candidates:
        raise NoStroke("no digit in it: nothing looks like a stroke of a pen")
    best = max(candidates, key=lambda candidate: candidate.score)
    return _extract(ink, best, noise, drawing=drawing)


def _best(ink: Picture, mask: Mask, level: float, *, drawing: bool) -> _Candidate | None:
    """Return the piece that looks most like a digit, if any does."""
    pieces = find_pieces(mask)
    smallest = SIZE_MIN * min(ink.shape)
    best: _Candidate | None = None
    for number in np.argsort(-pieces.sizes)[:12]:
        if pieces.sizes[number] < smallest:
            break
        if not _is_stroke(pieces, int(number), drawing=drawing):
            continue
        box = _box(pieces, int(number))
        inside = ink[box][pieces.labels[box] == number]
        strength = float(np.percentile(inside, 80).clip(level, 1))
        if not drawing and _is_blunt(ink[box], pieces.labels[box] == number, strength):
            continue
        score = min(float(pieces.sizes[number]), LARGE * min(ink.shape)) * strength
        if best is None or score > best.score:
            best = _Candidate(pieces, int(number), strength, score)
    return best


def _is_stroke(pieces: Pieces, number: int, *, drawing: bool) -> bool:
    box = _box(pieces, number)
    shape = pieces.labels[box] == number
    size = max(shape.shape)
    if min(shape.shape) < NARROW * size or stroke_width(shape) > SOLID * size:
        return False
    if not drawing and _contact(pieces, number) > EDGE_CONTACT * size:
        return False
    return not _is_frame(shape)


def _is_blunt(ink: Picture, shape: Mask, strength: float) -> bool:
    """Return whether a shape fades out, as a shadow and a crease do and ink does not.

    Strong ink may be out of focus.
    """
    padded = np.pad(shape, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    steepness = np.hypot(*np.gradient(ink))[shape & ~inner]
    fading = strength / max(float(np.median(steepness)), 1e-6)  # pixels from ink to paper
    sharp = max(EDGE_SHARP, 0.5 * stroke_width(shape))
    return fading > (2 * sharp if strength > STRONG else sharp)


def _is_frame(shape: Mask) -> bool:
    """Return whether a shape follows all four sides of its box."""
    band = max(1, round(0.06 * max(shape.shape)))
    sides = (
        shape[:band].any(axis=0),
        shape[-band:].any(axis=0),
        shape[:, :band].any(axis=1),
        shape[:, -band:].any(axis=1),
    )
    return bool(min(side.mean() for side in sides) > 0.8)


def _contact(pieces: Pieces, number: int) -> int:
    """Return how many of the border's pixels belong to a piece."""
    labels = pieces.labels
    sides = (labels[:2], labels[-2:], labels[:, :2].T, labels[:, -2:].T)
    return int(sum((side == number).any(axis=0).sum() for side in sides))


def _extract(ink: Picture, best: _Candidate, noise: float, *, drawing: bool) -> Picture:
    """Return the ink of the candidate and of the pieces that belong to it."""
    level = max(0.42 * best.strength, 0.8 * NOISE_FACTOR * noise)
    pieces = find_pieces(remove_lines(ink, ink > level))
    overlap = pieces.labels[best.pieces.labels == best.number]
    overlap = overlap[overlap >= 0]
    if not len(overlap):
        raise NoStroke("no digit in it: nothing looks like a stroke of a pen")
    shared = np.bincount(overlap, minlength=len(pieces.areas))
    main = int(shared.argmax())
    joined = {int(n) for n in np.flatnonzero(shared > 0.5 * pieces.areas)}
    if not drawing and _contact(pieces, main):
        raise InvalidInput("the digit is cropped by the picture's border; show the whole digit")
    numbers = _belonging(ink, pieces, main, joined, best.strength)
    digit = pieces.pixels(numbers)
    halo = Image.fromarray(digit).convert("L").filter(ImageFilter.MaxFilter(3))
    shown = np.where(np.asarray(halo) > 0, ink / best.strength, 0)
    return shown.clip(0, 1).astype(np.float32)


def _belonging(
    ink: Picture, pieces: Pieces, main: int, joined: set[int], strength: float
) -> list[int]:
    """Return the pieces that make one digit with the main piece: a pen may leave gaps.

    Fainter ink joins some of them to the main piece.

    Raises:
        InvalidInput: another piece is a digit of its own.
    """
    width = stroke_width(pieces.labels[_box(pieces, main)] == main)
    others = {
        int(number)
        for number in np.argsort(-pieces.sizes)[:PIECES_MAX]
        if number != main
        and pieces.areas[number] >= 0.5 * width**2
        and _is_stroke_part(ink, pieces, int(number), strength)
    }
    numbers = sorted({main} | joined)
    others -= joined
    while near := {n for n in others if _gap(pieces, numbers, n) <= _reach(pieces, main, n)}:
        numbers += near
        others -= near
    size = _size(pieces, numbers)
    apart = [n for n in others if pieces.sizes[n] >= SECOND * size]
    if any(_is_stroke(pieces, n, drawing=False) for n in apart) or _side_by_side(pieces, numbers):
        raise InvalidInput("more than one digit in it; show one digit alone")
    return numbers


def _reach(pieces: Pieces, main: int, other: int) -> float:
    """Return how far from the digit another piece may lie and still belong to it."""
    size = pieces.sizes[other]
    is_flat = pieces.bottoms[other] - pieces.tops[other] < FLAT * size
    return BROKEN if is_flat and size >= SECOND * pieces.sizes[main] else NEAR


def _side_by_side(pieces: Pieces, numbers: list[int]) -> bool:
    """Return whether two of the pieces are as tall as all together, and beside each other."""
    height = pieces.bottoms[numbers].max() - pieces.tops[numbers].min()
    tall = [n for n in numbers if pieces.bottoms[n] - pieces.tops[n] >= TALL * height]
    tall.sort(key=lambda number: pieces.lefts[number])
    return any(
        pieces.rights[left] - pieces.lefts[right]
        < 0.4 * min(pieces.rights[n] - pieces.lefts[n] for n in (left, right))
        for left, right in pairwise(tall)
    )


def _is_stroke_part(ink: Picture, pieces: Pieces, number: int, strength: float) -> bool:
    box = _box(pieces, number)
    inside = ink[box][pieces.labels[box] == number]
    same = np.percentile(inside, 80) > 0.55 * strength
    return bool(same) and _contact(pieces, number) == 0


def _gap(pieces: Pieces, numbers: list[int], other: int) -> float:
    """Return the distance from some pieces' box to another piece, as a share of their size."""
    across = max(pieces.lefts[numbers].min(), pieces.lefts[other]) - min(
        pieces.rights[numbers].max(), pieces.rights[other]
    )
    down = max(pieces.tops[numbers].min(), pieces.tops[other]) - min(
        pieces.bottoms[numbers].max(), pieces.bottoms[other]
    )
    size = max(_size(pieces, numbers), pieces.sizes[other])
    return float(np.hypot(max(across, 0), max(down, 0)) / size)


def _size(pieces: Pieces, numbers: list[int]) -> int:
    """Return the longer side of the box around some pieces."""
    return int(
        max(
            pieces.bottoms[numbers].max() - pieces.tops[numbers].min(),
            pieces.rights[numbers].max() - pieces.lefts[numbers].min(),
        )
    )


def _box(pieces: Pieces, number: int) -> tuple[slice, slice]:
    return (
        slice(pieces.tops[number], pieces.bottoms[number]),
        slice(pieces.lefts[number], pieces.rights[number]),
    )
