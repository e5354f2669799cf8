"""Tests of pictures of digits in many forms: each becomes the MNIST image it was made from."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mnist37_client import Client, InvalidInput, read_digit, validation_images
from mnist37_client.pictures.reading import Source
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Transpose

Grey = NDArray[np.uint8]
Save = Callable[[Grey, Path], Path]  # writes an image of MNIST to a file in a folder

IMAGES, LABELS = validation_images()
THREES, SEVENS = np.flatnonzero(LABELS == 1), np.flatnonzero(LABELS == 0)

ORIENTATION = 0x0112  # EXIF's tag
STORED_TRANSPOSE = {  # by EXIF's orientation: how a camera with this orientation stores a picture
    3: Transpose.ROTATE_180,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_90,
    8: Transpose.ROTATE_270,
}


def sample(count: int) -> Grey:
    """Return `count` threes and `count` sevens, from all parts of the validation set."""
    places = [kind[:: len(kind) // count][:count] for kind in (THREES, SEVENS)]
    return IMAGES[np.concatenate(places)]


def enlarged(image: Grey, times: int = 10) -> Grey:
    return image.repeat(times, axis=0).repeat(times, axis=1)


def save(pixels: NDArray[Any], folder: Path, name: str = "digit.png", **options: Any) -> Path:
    path = folder / name
    Image.fromarray(pixels).save(path, **options)
    return path


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def light_on_dark(image: Grey, folder: Path) -> Path:
    return save(enlarged(image), folder)


def dark_on_light(image: Grey, folder: Path) -> Path:
    return save(255 - enlarged(image), folder)


def dark_on_light_28_by_28(image: Grey, folder: Path) -> Path:
    return save(255 - image, folder)


def jpeg(image: Grey, folder: Path) -> Path:
    return save(255 - enlarged(image), folder, "digit.jpg")


def cmyk_jpeg(image: Grey, folder: Path) -> Path:
    path = folder / "digit.jpg"
    Image.fromarray(255 - enlarged(image)).convert("CMYK").save(path)
    return path


def palette(image: Grey, folder: Path) -> Path:
    path = folder / "digit.png"
    Image.fromarray(255 - enlarged(image)).convert("P").save(path)
    return path


def off_centre_on_a_large_canvas(image: Grey, folder: Path) -> Path:
    canvas = np.full((500, 700), 255, np.uint8)
    canvas[20:300, 390:670] -= enlarged(image)
    return save(canvas, folder)


def dark_ink_on_nothing(image: Grey, folder: Path) -> Path:
    pixels = np.zeros((280, 280, 4), np.uint8)
    pixels[..., 3] = enlarged(image)
    return save(pixels, folder)


def sixteen_bits_light_on_dark(image: Grey, folder: Path) -> Path:
    return save(enlarged(image).astype(np.uint16) * 257, folder)


def sixteen_bits_dark_on_light(image: Grey, folder: Path) -> Path:
    return save((255 - enlarged(image)).astype(np.uint16) * 257, folder)


def grey_paper(image: Grey, folder: Path) -> Path:
    return save(np.rint(200 - enlarged(image) / 255 * (200 - 60)).astype(np.uint8), folder)


def turned_jpeg(orientation: int) -> Save:
    def turn(image: Grey, folder: Path) -> Path:
        path = folder / "digit.jpg"
        stored = Image.fromarray(255 - enlarged(image)).transpose(STORED_TRANSPOSE[orientation])
        stored.save(path, exif=oriented(orientation))
        return path

    turn.__name__ = f"orientation_{orientation}"
    return turn


VARIANTS: list[Save] = [
    light_on_dark,
    dark_on_light,
    dark_on_light_28_by_28,
    jpeg,
    cmyk_jpeg,
    palette,
    off_centre_on_a_large_canvas,
    dark_ink_on_nothing,
    sixteen_bits_light_on_dark,
    sixteen_bits_dark_on_light,
    grey_paper,
    *(turned_jpeg(orientation) for orientation in STORED_TRANSPOSE),
]


def centre_of_mass(image: Grey) -> NDArray[np.float64]:
    """Return an image's centre of mass, as (row, column)."""
    places = np.arange(28)
    mass = np.array([image.sum(axis=1), image.sum(axis=0)], np.float64)
    centre: NDArray[np.float64] = mass @ places / image.sum(dtype=float)
    return centre


def test_an_image_of_mnist_comes_back_unchanged(tmp_path: Path) -> None:
    inner = IMAGES[:, 1:-1, 1:-1]
    to_the_border = IMAGES.sum(axis=(1, 2), dtype=int) > inner.sum(axis=(1, 2), dtype=int)
    places = {*np.flatnonzero(to_the_border).tolist(), *range(0, len(IMAGES), 25)}
    changed = [
        place
        for place in sorted(places)
        if not np.array_equal(read_digit(save(IMAGES[place], tmp_path)), IMAGES[place])
    ]
    assert not changed


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.__name__)
def test_a_picture_becomes_about_the_image_it_was_made_from(variant: Save, tmp_path: Path) -> None:
    images = sample(5)
    prepared = np.stack([read_digit(variant(image, tmp_path)) for image in images])
    assert prepared.dtype == np.uint8
    assert prepared.shape == images.shape
    # A mean over all images, because in a few of them an edge moves by one pixel.
    assert np.abs(prepared.astype(float) - images).mean() < 4


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.__name__)
def test_the_digit_is_centred_by_its_mass(variant: Save, tmp_path: Path) -> None:
    for image in sample(2):
        assert np.abs(centre_of_mass(read_digit(variant(image, tmp_path))) - 14).max() < 0.7


MODES = ["RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16B", "F", "LA", "La"]
MADE_FROM = {"RGBa": "RGBA", "La": "LA", "I;16B": "I"}  # Pillow converts to them from no other mode


@pytest.mark.parametrize("mode", MODES)
def test_a_picture_of_pillow_may_have_any_mode(mode: str) -> None:
    paper = Image.fromarray(255 - enlarged(IMAGES[0]))
    if mode == "LAB":
        neutral = Image.new("L", paper.size, 128)
        picture = Image.merge("LAB", [paper, neutral, neutral])
    else:
        picture = paper.convert("RGB").convert(MADE_FROM.get(mode, mode)).convert(mode)
    difference = read_digit(picture).astype(float) - read_digit(paper)
    assert np.abs(difference).mean() < 2


def test_a_damaged_picture_of_pillow_is_refused() -> None:
    file = io.BytesIO()
    Image.fromarray(255 - enlarged(IMAGES[0])).save(file, "JPEG")
    half = io.BytesIO(file.getvalue()[:2000])
    with pytest.raises(InvalidInput, match="cannot be read: "):
        read_digit(Image.open(half))


@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (2, 3000), (13, 57)])
def test_two_dots_in_any_shape_are_refused(shape: tuple[int, int], tmp_path: Path) -> None:
    pixels = np.full(shape, 255, np.uint8)
    pixels[-1, -1] = 0
    pixels[shape[0] // 2, shape[1] // 2] = 0
    with pytest.raises(InvalidInput, match="no digit in it"):
        read_digit(save(pixels, tmp_path))


def test_the_content_of_a_file_counts_and_not_its_name(tmp_path: Path) -> None:
    path = save(255 - enlarged(IMAGES[0]), tmp_path, "digit.jpg", format="PNG")
    assert np.abs(read_digit(path).astype(float) - IMAGES[0]).mean() < 4


def test_a_picture_with_a_damaged_exif_is_read_without_a_warning(tmp_path: Path) -> None:
    whole = oriented(1).tobytes()
    path = save(255 - enlarged(IMAGES[0]), tmp_path, exif=whole[:-8])
    assert np.abs(read_digit(path).astype(float) - IMAGES[0]).mean() < 4


def no_picture(folder: Path) -> Path:
    path = folder / "text.png"
    path.write_text("this is no picture\n" * 100)
    return path


def empty_file(folder: Path) -> Path:
    path = folder / "empty.png"
    path.touch()
    return path


def truncated(name: str) -> Callable[[Path], Path]:
    def cut(folder: Path) -> Path:
        path = save(255 - enlarged(IMAGES[0]), folder, name)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        return path

    cut.__name__ = f"truncated_{name.rpartition('.')[2]}"
    return cut


def missing(folder: Path) -> Path:
    return folder / "missing.png"


def a_folder(folder: Path) -> Path:
    return folder


def blank(shade: int, side: int) -> Callable[[Path], Path]:
    def paper(folder: Path) -> Path:
        return save(np.full((side, side), shade, np.uint8), folder)

    paper.__name__ = f"blank_{shade}_{side}"
    return paper


def fully_transparent(folder: Path) -> Path:
    return save(np.zeros((50, 50, 4), np.uint8), folder)


def only_a_header(side: int) -> Callable[[Path], Path]:
    """Return a function that writes a short PNG whose header says `side` x `side` pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    def huge(folder: Path) -> Path:
        header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
        content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0"))
        path = folder / "huge.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
        return path

    huge.__name__ = f"only_a_header_{side}"
    return huge


@pytest.mark.parametrize(
    "wrong",
    [
        no_picture,
        empty_file,
        truncated("cut.png"),
        truncated("cut.jpg"),
        missing,
        a_folder,
        *(blank(shade, side) for shade in (0, 128, 255) for side in (1, 28, 100)),
        fully_transparent,
        # Pillow warns of the first and refuses the second, because they would fill the memory.
        only_a_header(10_000),
        only_a_header(20_000),
    ],
    ids=lambda wrong: wrong.__name__,
)
def test_a_file_without_a_digit_is_refused_in_one_line_that_names_it(
    wrong: Callable[[Path], Path], tmp_path: Path
) -> None:
    path = wrong(tmp_path)
    with pytest.raises(InvalidInput) as refused:
        read_digit(path)
    message = str(refused.value)
    assert str(path) in message
    assert len(message.splitlines()) == 1
    assert "<_io." not in message  # no representation of a Python object


def ink_as_bright_as_its_paper(image: Grey) -> Grey:
    """Return a digit in green on a red paper of the same brightness."""
    ink = enlarged(np.pad(image, 4))[..., None] / 255
    colours = (1 - ink) * (225, 160, 160) + ink * (125, 211, 160)
    return np.rint(colours).astype(np.uint8)


def bars_of_a_screenshot(image: Grey) -> Grey:
    """Return a digit on paper between two black bars, each with some text."""
    screen = np.pad(255 - enlarged(np.pad(image, 4)), ((240, 240), (0, 0)))
    screen[10:20, 10:40] = screen[-8:-5, 120:240] = 200
    return screen


def long_strip(image: Grey) -> Grey:
    """Return a digit on a strip of paper, its stroke longer than half of the strip's width."""
    return 255 - np.pad(enlarged(image, 3), ((0, 0), (0, 700)))


@pytest.mark.parametrize(
    "made", [ink_as_bright_as_its_paper, bars_of_a_screenshot, long_strip], ids=lambda m: m.__name__
)
def test_a_digit_is_found_where_the_shades_of_grey_mislead(made: Callable[[Grey], Grey]) -> None:
    for image in sample(5):
        found = read_digit(made(image)).astype(float)
        overlap = np.corrcoef(found.ravel(), image.ravel().astype(float))[0, 1]
        assert overlap > 0.65


@pytest.mark.parametrize("alpha", [False, True])
def test_a_picture_keeps_its_colours_if_it_has_an_alpha_channel(alpha: bool) -> None:
    colours = ink_as_bright_as_its_paper(IMAGES[0])
    if alpha:
        colours = np.dstack([colours, np.full(colours.shape[:2], 255, np.uint8)])
    assert read_digit(colours).any()


def test_bars_around_blank_paper_and_a_blank_colour_are_refused() -> None:
    noise = np.random.default_rng(37).normal(0, 3, (200, 300, 3))
    paper = (noise + np.array((225, 160, 160))).astype(np.uint8)
    for blank_picture in (paper, np.pad(paper, ((150, 150), (0, 0), (0, 0)))):
        with pytest.raises(InvalidInput, match="no digit in it"):
            read_digit(blank_picture)


def test_a_trained_model_recognises_prepared_pictures(client: Client, tmp_path: Path) -> None:
    client.train(epochs=20).wait()
    images = sample(50)
    paths = [
        save(255 - enlarged(np.pad(image, 4), 5), tmp_path, f"{place}.png")
        for place, image in enumerate(images)
    ]
    prediction = client.predict(np.stack([read_digit(path) for path in paths]))
    accuracy = (prediction.digits == np.repeat([3, 7], 50)).mean()
    assert accuracy >= 0.93


def webp(image: Grey) -> bytes:
    return encoded(image, "WEBP", lossless=True)


def encoded(image: Grey, kind: str, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    drawn = Image.fromarray(255 - enlarged(np.pad(image, 4))).convert(mode)
    drawn.save(file, kind, **options)
    return file.getvalue()


def mpo(image: Grey) -> bytes:
    other = Image.new("RGB", (360, 360), "white")
    return encoded(image, "MPO", save_all=True, append_images=[other])


def tiff_of_two_pages(image: Grey) -> bytes:
    return encoded(image, "TIFF", save_all=True, append_images=[Image.new("RGB", (9, 9))])


def twelve_bits(image: Grey) -> bytes:
    file = io.BytesIO()
    values = (255 - enlarged(np.pad(image, 4))).astype(np.uint16) * 16
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


FILES: dict[str, Callable[[Grey], bytes]] = {
    "WebP": webp,
    "GIF": lambda image: encoded(image, "GIF", "P"),
    "BMP": lambda image: encoded(image, "BMP"),
    "TIFF of two pages": tiff_of_two_pages,
    "MPO": mpo,
    "PNG of 12 bits": twelve_bits,
    "PNG with alpha": lambda image: encoded(image, "PNG", "RGBA"),
    "PNG with a palette": lambda image: encoded(image, "PNG", "P"),
}


@pytest.mark.parametrize("kind", FILES)
def test_the_formats_that_pillow_reads_by_itself(kind: str) -> None:
    images = sample(3)
    prepared = np.stack([read_digit(FILES[kind](image)) for image in images])
    assert np.abs(prepared.astype(float) - images).mean() < 6


def test_every_kind_of_source_gives_the_same_digit(tmp_path: Path) -> None:
    pixels = 255 - enlarged(np.pad(IMAGES[0], 4))
    path = save(pixels, tmp_path)
    expected = read_digit(path)
    sources: list[Source] = [
        str(path),
        path.read_bytes(),
        io.BytesIO(path.read_bytes()),
        Image.open(path),
        pixels,
        pixels / 255,
        np.stack([pixels] * 3, axis=2),
    ]
    for source in sources:
        assert np.array_equal(read_digit(source), expected)


@pytest.mark.parametrize(
    "wrong", [None, 3, np.zeros(5), np.full((9, 9), np.nan), np.full((9, 9), -1), io.StringIO("a")]
)
def test_another_source_is_refused_in_one_line(wrong: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_digit(wrong)
    assert len(str(refused.value).splitlines()) == 1


def test_heic_is_refused_with_what_helps() -> None:
    with pytest.raises(InvalidInput, match="HEIC cannot be read; export the photo as a JPEG"):
        read_digit(b"\0\0\0\x18ftypheic" + bytes(100))


def test_a_transparency_that_is_too_long_is_refused_or_read_in_one_line() -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", 28, 28, 8, 3, 0, 0, 0)
    parts = [(b"IHDR", header), (b"PLTE", b"abc"), (b"tRNS", bytes(300))]
    parts += [(b"IDAT", zlib.compress(bytes(29 * 28))), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)
    with pytest.raises(InvalidInput) as refused:
        read_digit(content)
    assert len(str(refused.value).splitlines()) == 1


# Seconds that a photo takes, seconds that Pillow takes to decode it, and the peak of memory in MB.
MEASURE = """
import re, sys, time
from pathlib import Path
from mnist37_client import read_digit
began = time.process_time()
read_digit(sys.argv[1])
taken = time.process_time() - began
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
from PIL import Image
began = time.process_time()
with Image.open(sys.argv[1]) as photo:
    photo.load()
print(taken, time.process_time() - began, int(peak) / 1024)
"""


def photo_of(megapixels: int) -> Image.Image:
    """Return a large photo of a digit, in colours."""
    side = round((megapixels * 1e6) ** 0.5)
    photo = Image.new("RGB", (side, side), (220, 215, 210))
    digit = Image.fromarray(255 - IMAGES[0]).resize((side // 2, side // 2))
    photo.paste(digit.point(lambda shade: shade * 0.8), (side // 4, side // 4))
    return photo


def sixteen_bits(photo: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)


LARGE: list[tuple[int, str, str, float]] = [  # megapixels, format, mode, megabytes at most
    (12, "JPEG", "RGB", 200),
    (12, "PNG", "RGBA", 200),
    (12, "PNG", "16 bits", 200),
    (12, "WEBP", "RGB", 230),  # its decoder keeps several copies
    (12, "TIFF", "RGB", 200),
    (12, "GIF", "P", 200),
    (12, "BMP", "RGB", 200),
    (15, "WEBP", "RGBA", 300),
    (24, "PNG", "RGBA", 300),
    (24, "TIFF", "CMYK", 300),
    (48, "JPEG", "RGB", 300),
]


@pytest.mark.alone
@pytest.mark.parametrize(("megapixels", "kind", "mode", "memory"), LARGE)
def test_a_large_photo_takes_little_time_and_memory(
    megapixels: int, kind: str, mode: str, memory: float, tmp_path: Path
) -> None:
    photo = photo_of(megapixels)
    stored = sixteen_bits(photo) if mode == "16 bits" else photo.convert(mode)
    quick = {"PNG": {"compress_level": 1}, "WEBP": {"method": 0}}.get(kind, {})
    stored.save(tmp_path / "photo", kind, **quick)
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "photo")]
    limit = 0.5 if megapixels == 12 else 2
    for _ in range(5):  # on a busy machine a measurement is longer than the work
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        taken, decoding, peak = map(float, found.stdout.split())
        assert peak < memory
        # Of half a second, a decoder takes a fifth at most; on a slow processor both take longer.
        if taken < max(limit, 5 * decoding):
            break
    assert taken < max(limit, 5 * decoding)


@pytest.mark.parametrize(("megapixels", "kind"), [(17, "WEBP"), (26, "BMP"), (51, "JPEG")])
def test_a_larger_photo_is_refused_with_the_limit_of_its_format(megapixels: int, kind: str) -> None:
    file = io.BytesIO()
    side = round((megapixels * 1e6) ** 0.5)
    Image.new("L", (side, side)).save(file, kind, **({"method": 0} if kind == "WEBP" else {}))
    with pytest.raises(InvalidInput, match=rf"more than [\d,]+ pixels.*{kind}.*make it smaller"):
        read_digit(file.getvalue())


def test_a_large_array_takes_little_memory() -> None:
    shades = np.asarray(photo_of(12), np.uint8)
    tracemalloc.start()
    read_digit(shades)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
