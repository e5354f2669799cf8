"""Ink and paper: what each pixel reflects, compared with the paper around it."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Picture = NDArray[np.float32]  # (height, width)

PAPER_SIDE = 64  # pixels of the longer side at which the paper is estimated
PAPER_REACH = 15  # of those pixels: wider than half of two strokes of a digit that fills a picture
SMALL = 64  # pixels; a picture of this side or less is a drawing on even paper


def measure_ink(grey: Picture) -> tuple[Picture, float]:
    """Return the ink at each pixel, about 0 to 1, and the noise in it.

    Ink is darker than its paper or lighter, as a whole. A share of the light around it makes it
    independent of the light.
    """
    paper = _paper(grey)
    sides = _dark(grey, paper), _light(grey, paper)
    floor = 2 * _noise(sides[0]) + 0.04
    steepness = np.hypot(*np.gradient(grey)) if min(grey.shape) > 1 else 1  # a shadow fades out
    energies = [float((np.square((s - floor).clip(0, 1)) * steepness).sum()) for s in sides]
    measure = _dark if energies[0] >= energies[1] else _light
    noise = _noise(measure(grey, paper))
    radius = 0.7 if noise < 0.012 else 1.2 if noise < 0.03 else 2.0
    radius = min(radius, max(grey.shape) / 200)
    smooth = measure(_blurred(grey, radius), paper)
    return smooth, max(_noise(smooth), noise / (1 + 3.5 * radius))


def _dark(grey: Picture, paper: Picture) -> Picture:
    return ((paper - grey) / np.maximum(paper, 32)).astype(np.float32)


def _light(grey: Picture, paper: Picture) -> Picture:
    return ((grey - paper) / np.maximum(255 - paper, 128)).astype(np.float32)


def _paper(grey: Picture) -> Picture:
    """Return the paper's shade at each pixel: the median of the pixels around."""
    height, width = grey.shape
    if max(height, width) <= SMALL:
        border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
        return np.full_like(grey, np.median(border))
    scale = PAPER_SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BOX))
    padded = np.pad(small, PAPER_REACH, mode="symmetric")
    windows = sliding_window_view(padded, (2 * PAPER_REACH + 1,) * 2)[..., ::2, ::2]
    median = np.median(windows, axis=(2, 3)).astype(np.float32)
    return np.asarray(Image.fromarray(median).resize((width, height), Image.Resampling.BILINEAR))


def _noise(values: Picture) -> float:
    """Return the standard deviation of the noise: the typical change from pixel to pixel."""
    if values.shape[1] < 3:
        return 0.0
    return float(np.median(np.abs(np.diff(values, axis=1))) / 0.954)


def _blurred(grey: Picture, radius: float) -> Picture:
    whole = Image.fromarray(np.rint(grey).astype(np.uint8))  # Pillow blurs no floats
    return np.asarray(whole.filter(ImageFilter.GaussianBlur(radius)), np.float32)
