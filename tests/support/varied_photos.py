"""Made photos that vary in everything at once: colours, sizes, pens, papers, views and cameras.

The conditions of `support.photos` change one thing each, in grey. A photo made here has coloured
ink on coloured paper, seen at an angle, in a large or a small file.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from support.photos import Digit, Layer, Make, Random, cloud, grid, ramp, strokes, thinned

Colour: TypeAlias = tuple[float, float, float]  # the share of red, green and blue it reflects
Page: TypeAlias = Layer  # (height, width, 3)
Paint: TypeAlias = Callable[[Page, Random], None]

INKS: dict[str, Colour] = {
    "black": (0.12, 0.12, 0.13),
    "blue": (0.12, 0.2, 0.6),
    "red": (0.75, 0.15, 0.18),
    "green": (0.1, 0.45, 0.25),
    "pencil": (0.5, 0.5, 0.52),
}
PAPERS: tuple[Colour, ...] = (
    (0.95, 0.95, 0.95), (0.93, 0.9, 0.78), (0.95, 0.88, 0.55), (0.8, 0.88, 0.95), (0.75, 0.7, 0.62),
)  # fmt: skip
LINES: tuple[Colour, ...] = ((0.6, 0.75, 0.92), (0.7, 0.7, 0.72), (0.92, 0.65, 0.65))
SIDES = (200, 300, 400, 600, 800, 1200, 1600)


def view(layer: Layer, random: Random) -> Layer:
    """Return a layer as seen from an angle: turned, and narrower at one side."""
    turned = Image.fromarray(layer.astype(np.float32)).rotate(
        random.uniform(-8, 8), Image.Resampling.BICUBIC
    )
    width, height = turned.size
    corners = np.array([(0, 0), (0, height), (width, height), (width, 0)], float)
    corners += random.uniform(0, 0.08, (4, 2)) * (width, height) * np.sign((0.5, 0.5) - corners)
    seen = turned.transform(
        turned.size, Image.Transform.QUAD, corners.ravel().tolist(), Image.Resampling.BICUBIC
    )
    return np.asarray(seen).clip(0, 1)


def mix(page: Page, layer: Layer, colour: Colour) -> None:
    """Paint a layer over the page: what it covers reflects this colour's share."""
    page *= 1 - layer[..., None] * (1 - np.array(colour, np.float32))


def rule(page: Page, random: Random, *, across: bool = True, alone: bool = False) -> None:
    """Print rules in one of three colours, up to 3 degrees from level or upright."""
    target = page if across else page.transpose(1, 0, 2)
    height, width = target.shape[:2]
    pitch = 1e6 if alone else random.uniform(0.05, 0.2) * min(page.shape[:2])
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    lean = np.tan(np.radians(random.uniform(-3, 3)))
    first = random.uniform(0.05, 0.2) * height
    away = np.abs((rows - lean * columns - first + pitch / 2) % pitch - pitch / 2)
    thick = max(1.0, random.uniform(0.0015, 0.006) * max(height, width))
    line = (thick / 2 + 0.5 - away).clip(0, 1)
    mix(target, line, LINES[random.integers(len(LINES))])


def square(page: Page, random: Random) -> None:
    rule(page, random)
    rule(page, random, across=False)


def margin(page: Page, random: Random) -> None:
    rule(page, random)
    rule(page, random, across=False, alone=True)


def dirt(page: Page, random: Random) -> None:
    """Drop specks, hairs and pale stains on the page."""
    height, width = page.shape[:2]
    layer = Image.new("L", (width, height))
    pen = ImageDraw.Draw(layer)
    for _ in range(int(random.integers(1, 9))):
        x, y, size = *random.uniform(0, 1, 2) * (width, height), random.uniform(0.001, 0.006)
        radius = max(1, size * width)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    x, y = random.uniform(0, 1, 2) * (width, height)
    bow = random.uniform(0.02, 0.06) * width
    pen.arc((x - bow, y - bow, x + bow, y + bow), 20, 100, fill=180, width=1)
    mix(page, np.asarray(layer, np.float32) / 255, (0.3, 0.27, 0.25))
    stain = cloud(page.shape, random, 5)
    mix(page, 0.06 * stain.clip(0, 2), (0.7, 0.55, 0.3))


def shade(page: Page, random: Random) -> None:
    """Cast a shadow: a band, a round head or a straight edge, more or less soft."""
    rows, columns = grid(page.shape[:2])
    kind = random.integers(3)
    if kind == 0:
        away = np.hypot(rows - random.uniform(-0.2, 1.2), columns - random.uniform(-0.2, 1.2)) - 0.5
    elif kind == 1:
        away = np.abs(ramp(rows.shape, random) - random.uniform(0.1, 0.9)) - 0.2
    else:
        away = ramp(rows.shape, random) - random.uniform(0.3, 0.7)
    softness = random.uniform(0.015, 0.08)
    page *= (
        1 - (random.uniform(0.2, 0.5) / (1 + np.exp((away / softness).clip(-50, 50))))[..., None]
    )


def table(page: Page, random: Random) -> None:
    """Show a table of some colour, with grain, at one side or two, turned by up to 3 degrees."""
    colour = random.uniform(0.08, 0.6, 3).astype(np.float32)
    for turns in random.choice(4, random.integers(1, 3), replace=False):
        seen = np.rot90(page, turns)
        lean = np.tan(np.radians(random.uniform(-3, 3))) * np.arange(seen.shape[1])
        depth = random.uniform(0.02, 0.14) * len(seen)
        outside = np.arange(len(seen))[:, None] < depth + lean - lean.mean()
        grain = 1 + 0.05 * cloud(seen.shape, random, 30)[..., None]
        seen[outside] = (colour * grain)[outside]


def photograph(page: Page, random: Random) -> bytes:
    """Return the file of a camera: out of focus a little, in warm or cold light, noise, JPEG."""
    image = Image.fromarray((page.clip(0, 1) * 255).astype(np.uint8))
    blur = random.uniform(0, 0.0025) * max(image.size)
    lit = np.asarray(image.filter(ImageFilter.GaussianBlur(blur)), np.float32)
    lit = lit * random.uniform(0.8, 1, 3).astype(np.float32) * random.uniform(0.7, 1)
    lit += random.normal(0, random.uniform(0.5, 5), lit.shape).astype(np.float32)
    file = io.BytesIO()
    result = Image.fromarray(lit.clip(0, 255).astype(np.uint8))
    result.save(file, "JPEG", quality=int(random.integers(40, 96)))
    return file.getvalue()


def varied(
    digit: Digit, random: Random, before: Paint | None = None, after: Paint | None = None,
    inks: tuple[str, ...] = ("black", "blue", "red", "green"), pen: float | None = None,
) -> bytes:  # fmt: skip
    """Return a varied photo: `before` paints the page, `after` what was drawn on it."""
    long = int(random.choice(SIDES)) if random.random() < 0.97 else 4000
    short = round(long * random.choice([0.5625, 0.75, 1]))
    height, width = (long, short) if random.random() < 0.5 else (short, long)
    page = np.empty((height, width, 3), np.float32)
    page[:] = PAPERS[random.integers(len(PAPERS))]
    if before:
        before(page, random)
    size = round(random.uniform(0.25, 0.6) * short)
    thin = random.uniform(0.025, 0.06) if pen is None else pen
    # A layer of a large page is drawn smaller, for the strokes are smooth.
    drawn = min(size, 400)
    is_thin = random.random() < 0.4 or pen is not None
    layer = thinned(digit, drawn, thin) if is_thin else strokes(digit, drawn)
    layer = view(layer, random)
    if drawn < size:
        side = round(size * 28 / 20)
        layer = np.asarray(
            Image.fromarray(layer).resize((side, side), Image.Resampling.BICUBIC)
        ).clip(0, 1)
    free = np.array(page.shape[:2]) - layer.shape
    top, left = (free * random.uniform(0.25, 0.75, 2)).astype(int)
    part = page[top : top + layer.shape[0], left : left + layer.shape[1]]
    mix(part, layer, INKS[inks[random.integers(len(inks))]])
    if after:
        after(page, random)
    return photograph(page, random)


def equally_bright(digit: Digit, random: Random) -> bytes:
    """Return a photo of ink that is about as bright as its paper, in another colour."""
    side = int(random.integers(400, 800))
    paper = np.array((0.75, 0.65, 0.6), np.float32) + random.uniform(-0.05, 0.05, 3)
    # What red takes of the brightness, green gives back.
    ink = paper + random.uniform(0.6, 0.8) * np.array((-0.587, 0.299, 0))
    page = np.empty((side, side, 3), np.float32)
    page[:] = paper
    _write(page, digit, random, tuple((ink / paper).tolist()))
    return photograph(page, random)


def strip(digit: Digit, random: Random) -> bytes:
    """Return a photo that is five to ten times as long as wide."""
    short = int(random.integers(120, 400))
    page = np.empty((short, round(short * random.uniform(5, 10)), 3), np.float32)
    page[:] = PAPERS[random.integers(len(PAPERS))]
    page = page if random.random() < 0.5 else page.transpose(1, 0, 2)
    _write(page, digit, random, INKS["black"])
    return photograph(page, random)


def _write(page: Page, digit: Digit, random: Random, ink: Colour) -> None:
    layer = strokes(digit, round(random.uniform(0.35, 0.6) * min(page.shape[:2])))
    free = np.array(page.shape[:2]) - layer.shape
    top, left = (free * random.uniform(0.25, 0.75, 2)).astype(int)
    mix(page[top : top + layer.shape[0], left : left + layer.shape[1]], layer, ink)


def screenshot(digit: Digit, random: Random) -> bytes:
    """Return the screenshot of a photo: black bars, with the time, above and below or beside."""
    photo = Image.open(io.BytesIO(varied(digit, random)))
    width, height = photo.size
    bar = round(random.uniform(0.1, 0.5) * (height if random.random() < 0.5 else width))
    is_upright = height <= width
    across, down = (0, bar) if is_upright else (bar, 0)
    screen = Image.new("RGB", (width + 2 * across, height + 2 * down))
    screen.paste(photo, (across, down))
    ImageDraw.Draw(screen).text((bar // 4, bar // 4), "12:04", fill="white")
    file = io.BytesIO()
    screen.save(file, "PNG")
    return file.getvalue()


VARIED: dict[str, tuple[Make, float]] = {  # by name: how, and how many points may be lost
    "varied: plain": (varied, 1),
    "varied: thin pen": (lambda d, r: varied(d, r, pen=0.025), 4),
    "varied: shadow": (lambda d, r: varied(d, r, after=shade), 2),
    "varied: dirt": (lambda d, r: varied(d, r, after=dirt), 2),
    "varied: table": (lambda d, r: varied(d, r, before=table), 2),
    "varied: ruled": (lambda d, r: varied(d, r, before=rule), 3),
    "varied: squared": (lambda d, r: varied(d, r, before=square), 3),
    "varied: margin": (lambda d, r: varied(d, r, before=margin), 3),
    "varied: pencil, ruled": (lambda d, r: varied(d, r, before=rule, inks=("pencil",)), 3),
    "ink as bright as its paper": (equally_bright, 2),
    "bars of a screenshot": (screenshot, 2),
    "long strip": (strip, 2),
}
