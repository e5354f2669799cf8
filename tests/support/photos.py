"""Made photos of digits: MNIST's images drawn on paper, in light and dirt of many kinds."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Random: TypeAlias = np.random.Generator
Digit: TypeAlias = NDArray[np.uint8]  # (28, 28)
Layer: TypeAlias = NDArray[np.floating[Any]]  # (height, width), 0 to 1
Change: TypeAlias = Callable[[Layer, Random], Layer]  # of what the paper or the picture reflects


def strokes(digit: Digit, size: int, width: float = 0.0) -> Layer:
    """Return a digit as smooth strokes, `size` pixels for MNIST's 20; `width` pixels wider."""
    side = round(size * 28 / 20)
    large = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    large = large.filter(ImageFilter.GaussianBlur(size / 60))
    mask = Image.fromarray((np.asarray(large) > 115).astype(np.uint8) * 255)
    for _ in range(abs(round(width / 2))):
        mask = mask.filter(ImageFilter.MaxFilter(3) if width > 0 else ImageFilter.MinFilter(3))
    mask = mask.filter(ImageFilter.GaussianBlur(max(0.6, size / 250)))
    return np.asarray(mask, np.float32) / 255


def thinned(digit: Digit, size: int, share: float) -> Layer:
    """Return a digit in a thin pen: only the pixels that lie deep inside its strokes."""
    side = round(size * 28 / 20)
    large = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    solid = np.asarray(large.filter(ImageFilter.GaussianBlur(size / 60))) > 100
    image = Image.fromarray(solid.astype(np.uint8) * 255)
    goal, kept = share * size, solid
    eroded = image
    ridge = np.zeros_like(solid)
    while kept.any():  # the skeleton by openings, which keeps a line where strokes end
        eroded = eroded.filter(ImageFilter.MinFilter(3))
        opened = eroded.filter(ImageFilter.MaxFilter(3))
        ridge |= kept & ~(np.asarray(opened) > 0)
        kept = np.asarray(eroded) > 0
    line = Image.fromarray(ridge.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(1.2))
    line = Image.fromarray((np.asarray(line) > 60).astype(np.uint8) * 255)
    for _ in range(round((goal - 3) / 2)):
        line = line.filter(ImageFilter.MaxFilter(3))
    return np.asarray(line.filter(ImageFilter.GaussianBlur(0.7)), np.float32) / 255


def sheet(random: Random) -> Layer:
    """Return plain paper of some size and shade, with a little grain."""
    side = int(random.choice([240, 320, 480, 480, 640, 800]))
    height = side if random.random() < 0.5 else round(side * 0.75)
    shade = random.uniform(0.72, 0.98)
    return (shade + random.normal(0, 0.004, (height, side))).astype(np.float32)


def put(paper: Layer, layer: Layer, random: Random, ink: float, place: float = 0.5) -> Layer:
    """Return the paper with a layer of ink on it, near its middle or elsewhere."""
    height, width = layer.shape
    free = np.array(paper.shape) - layer.shape
    top, left = (free * (0.5 + random.uniform(-place, place, 2) / 2)).astype(int)
    result = paper.copy()
    result[top : top + height, left : left + width] *= 1 - layer * (1 - ink)
    return result


def draw(paper: Layer, digit: Digit, random: Random, pen: str = "pen") -> Layer:
    """Return the paper with the digit on it."""
    size = round(random.uniform(0.3, 0.6) * min(paper.shape))
    ink = random.uniform(0.08, 0.3)
    if pen == "ballpoint":
        layer = thinned(digit, size, random.uniform(0.02, 0.04))
    elif pen == "marker":
        layer = strokes(digit, size, size * random.uniform(0.01, 0.04))
    elif pen == "turned":
        layer = strokes(digit, size)
        turned = Image.fromarray(layer).rotate(random.uniform(-20, 20), Image.Resampling.BICUBIC)
        layer = np.asarray(turned).clip(0, 1)
    else:
        ink = random.uniform(0.5, 0.65) if pen == "pencil" else ink
        layer = strokes(digit, size, -size * 0.01 if pen == "pencil" else 0)
    return put(paper, layer, random, ink)


def grid(shape: tuple[int, ...]) -> tuple[Layer, Layer]:
    height, width = shape
    rows, columns = np.mgrid[0:1:height*1j, 0:1:width*1j].astype(np.float32)  # fmt: skip
    return rows, columns


def ramp(shape: tuple[int, ...], random: Random) -> Layer:
    rows, columns = grid(shape)
    angle = random.uniform(0, 2 * np.pi)
    values = np.cos(angle) * columns + np.sin(angle) * rows
    share: Layer = (values - values.min()) / np.ptp(values)
    return share


def cloud(shape: tuple[int, ...], random: Random, cells: int) -> Layer:
    small = Image.fromarray(random.normal(0, 1, (cells, cells)).astype(np.float32))
    return np.asarray(small.resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def light(paper: Layer, random: Random) -> Layer:
    return paper * (1 - random.uniform(0.3, 0.45) * ramp(paper.shape, random))


def shadow(paper: Layer, random: Random) -> Layer:
    softness, depth = random.uniform(0.02, 0.15), random.uniform(0.3, 0.55)
    edge = ramp(paper.shape, random) + 0.05 * cloud(paper.shape, random, 4)
    return paper * (1 - depth / (1 + np.exp(-(edge - random.uniform(0.3, 0.7)) / softness * 3)))


def vignette(paper: Layer, random: Random) -> Layer:
    rows, columns = grid(paper.shape)
    return paper * (1 - random.uniform(0.6, 1) * ((rows - 0.5) ** 2 + (columns - 0.5) ** 2))


def crumple(paper: Layer, random: Random) -> Layer:
    creases = cloud(paper.shape, random, int(random.integers(8, 28)))
    facets = np.abs(cloud(paper.shape, random, int(random.integers(4, 9))))
    crumpled: Layer = (paper * (1 - 0.035 * creases - 0.04 * facets)).clip(0, 1)
    return crumpled


def noise(paper: Layer, random: Random) -> Layer:
    sigma = random.uniform(8, 18) / 255
    return paper + random.normal(0, sigma, paper.shape).astype(np.float32)


def specks(paper: Layer, random: Random, count: int = 5, largest: float = 0.008) -> Layer:
    result = paper.copy()
    height, width = paper.shape
    for _ in range(count):
        radius = max(1, round(random.uniform(0.002, largest) * width))
        row, column = random.integers(0, height), random.integers(0, width)
        result[row : row + radius, column : column + radius] = 0.05
    return result


def one_pixel(paper: Layer, random: Random) -> Layer:
    result = paper.copy()
    result[random.integers(0, paper.shape[0]), random.integers(0, paper.shape[1])] = 0
    return result


def time_stamp(paper: Layer, random: Random) -> Layer:
    image = Image.fromarray((paper.clip(0, 1) * 255).astype(np.uint8))
    size = round(random.uniform(0.025, 0.05) * paper.shape[1])
    corner = (paper.shape[1] - 9 * size, paper.shape[0] - 2 * size)
    ImageDraw.Draw(image).text(corner, "2026-11-28 15:37", fill=90, font_size=size)
    return np.asarray(image, np.float32) / 255


def edge(paper: Layer, random: Random) -> Layer:
    """Lay the sheet on a table, dark or mid-grey, seen along one or two sides."""
    result = paper.copy()
    for _ in range(int(random.integers(1, 3))):
        turns = int(random.integers(0, 4))
        seen = np.rot90(result, turns)  # a view
        depth = random.uniform(0.03, 0.12) * len(seen)
        slant = random.uniform(-0.04, 0.04) * np.arange(seen.shape[1])
        outside = np.arange(len(seen))[:, None] < depth + slant - slant.mean()
        seen[outside] = random.uniform(0.05, 0.5)
    return result


def rules(paper: Layer, random: Random, *, squared: bool = False, margin: bool = False) -> Layer:
    """Print rules, straight or a little slanted, some wavy as on a page that does not lie flat."""
    result = paper.copy()
    pitch, depth = random.uniform(0.06, 0.16) * paper.shape[0], random.uniform(0.12, 0.4)
    slope, wave = random.uniform(-0.05, 0.05), random.uniform(0, 1.0)
    thick = max(1.0, random.uniform(0.002, 0.005) * paper.shape[1])
    for turned in (False, True) if squared else (False,):
        _print_rules(
            result.T if turned else result, pitch, depth, slope * (1 - 2 * turned), wave, thick
        )
    if margin:
        _print_rules(result.T, 1e6, depth, -slope, wave, thick, first=0.12 * paper.shape[1])
    return result


def _print_rules(
    page: Layer, pitch: float, depth: float, slope: float, wave: float, thick: float,
    first: float | None = None,
) -> None:  # fmt: skip
    rows, columns = np.mgrid[0 : page.shape[0], 0 : page.shape[1]].astype(np.float32)
    heights = rows - slope * (columns - page.shape[1] / 2) + wave * np.sin(columns / 90)
    offset = pitch / 2 if first is None else first
    away = np.abs((heights - offset + pitch / 2) % pitch - pitch / 2)
    page *= 1 - depth * (thick / 2 + 0.5 - away).clip(0, 1)


def printed_box(paper: Layer, random: Random) -> Layer:
    image = Image.fromarray((paper * 255).clip(0, 255).astype(np.uint8))
    height, width = paper.shape
    half = 0.47 * min(height, width)
    box = (width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half)
    line = max(1, round(random.uniform(0.003, 0.01) * width))
    ImageDraw.Draw(image).rectangle(box, outline=int(random.integers(20, 150)), width=line)
    return np.asarray(image, np.float32) / 255


def developed(picture: Layer, random: Random) -> bytes:
    """Return the file of a camera: a little blur and noise, colours, and JPEG."""
    image = Image.fromarray((picture.clip(0, 1) * 255).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(random.uniform(0, 0.9)))
    grey = np.asarray(image, np.float32)[..., None] * random.uniform(0.93, 1, 3).astype(np.float32)
    grey += random.normal(0, 1.5, grey.shape)
    file = io.BytesIO()
    Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(
        file, "JPEG", quality=int(random.integers(60, 96))
    )
    return file.getvalue()


def hand_drawn(digit: Digit, random: Random, *, negative: bool) -> bytes:
    """Return 28 x 28 pixels as drawn with a mouse: the digit fills them, or lies off the middle."""
    rows, columns = np.flatnonzero(digit.any(axis=1)), np.flatnonzero(digit.any(axis=0))
    cut = Image.fromarray(digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    size = int(random.choice([12, 16, 26, 28]))
    scale = size / max(cut.size)
    cut = cut.resize([max(1, round(side * scale)) for side in cut.size], Image.Resampling.BICUBIC)
    canvas = np.zeros((28, 28), np.uint8)
    top, left = (int(random.integers(0, 28 - side + 1)) for side in (cut.height, cut.width))
    canvas[top : top + cut.height, left : left + cut.width] = np.asarray(cut)
    file = io.BytesIO()
    Image.fromarray(255 - canvas if negative else canvas).save(file, "PNG")
    return file.getvalue()


def photo(
    digit: Digit, random: Random, before: Change | None = None, after: Change | None = None,
    pen: str = "pen",
) -> bytes:  # fmt: skip
    """Return a photo of a digit: `before` changes the paper, `after` what was drawn on it."""
    paper = sheet(random)
    drawn = draw(before(paper, random) if before else paper, digit, random, pen)
    return developed(after(drawn, random) if after else drawn, random)


Make: TypeAlias = Callable[[Digit, Random], bytes]


def _ruled(paper: Layer, random: Random) -> Layer:
    return rules(paper, random)


CONDITIONS: dict[str, tuple[Make, float]] = {  # by name: how, and how many points may be lost
    "clean": (photo, 1),
    "thick marker": (lambda d, r: photo(d, r, pen="marker"), 1),
    "turned by up to 20°": (lambda d, r: photo(d, r, pen="turned"), 1),
    "light": (lambda d, r: photo(d, r, after=light), 2),
    "soft shadow": (lambda d, r: photo(d, r, after=shadow), 2),
    "vignette": (lambda d, r: photo(d, r, after=vignette), 2),
    "crumpled paper": (lambda d, r: photo(d, r, before=crumple), 2),
    "sensor noise": (lambda d, r: photo(d, r, after=noise), 2),
    "five specks": (lambda d, r: photo(d, r, after=specks), 2),
    "one pixel": (lambda d, r: photo(d, r, after=one_pixel), 2),
    "time stamp": (lambda d, r: photo(d, r, after=time_stamp), 2),
    "table or scanner edge": (lambda d, r: photo(d, r, before=edge), 2),
    "ruled": (lambda d, r: photo(d, r, before=_ruled), 3),
    "squared": (lambda d, r: photo(d, r, before=lambda p, q: rules(p, q, squared=True)), 3),
    "margin": (lambda d, r: photo(d, r, before=lambda p, q: rules(p, q, margin=True)), 3),
    "printed box": (lambda d, r: photo(d, r, before=printed_box), 3),
    "faint pencil, ruled": (lambda d, r: photo(d, r, before=_ruled, pen="pencil"), 3),
    "thin ballpoint": (lambda d, r: photo(d, r, pen="ballpoint"), 4),
    "drawn 28 x 28": (lambda d, r: hand_drawn(d, r, negative=False), 2),
    "drawn 28 x 28, negative": (lambda d, r: hand_drawn(d, r, negative=True), 2),
}


def two_digits(one: Digit, other: Digit, random: Random) -> bytes:
    paper = sheet(random)
    size = round(0.35 * min(paper.shape))
    pair = np.concatenate([strokes(one, size), strokes(other, size)], axis=1)
    return developed(put(paper, pair, random, 0.2), random)


def cropped(digit: Digit, random: Random) -> bytes:
    paper = sheet(random)
    layer = strokes(digit, round(0.5 * min(paper.shape)))
    drawn = put(paper, layer, random, 0.2, place=0)
    drawn_rows = np.flatnonzero((layer > 0.5).any(axis=1))
    drawn_columns = np.flatnonzero((layer > 0.5).any(axis=0))
    top, left = (np.array(paper.shape) - layer.shape) // 2
    lost = random.uniform(0.15, 0.4)
    first_row, last_row = (int(np.quantile(drawn_rows, q)) + top for q in (lost, 1 - lost))
    first_column, last_column = (
        int(np.quantile(drawn_columns, q)) + left for q in (lost, 1 - lost)
    )
    parts = (
        drawn[first_row:],
        drawn[:last_row],
        drawn[:, first_column:],
        drawn[:, :last_column],
    )
    return developed(parts[random.integers(0, 4)], random)


def no_stroke(random: Random) -> bytes:
    """Return a photo without a digit: blank paper, noise alone, crumpled paper, a table's edge."""
    changes: tuple[Change, ...] = (lambda p, _: p, noise, light, shadow, crumple, edge, specks)
    return developed(changes[random.integers(len(changes))](sheet(random), random), random)
