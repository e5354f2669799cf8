"""Decoding of picture files: any format that Pillow reads by itself, in bounded memory."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path
from typing import IO, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from mnist37_client.errors import InvalidInput
from mnist37_client.files.bounded_file import read_bounded

# JPEG includes MPO, several JPEGs in one file: the first is read, as of GIF and TIFF.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
PIXELS_MAX = 50_000_000  # of a JPEG, which is made smaller while it is decoded
WHOLE_PIXELS_MAX = 25_000_000  # of a picture that is decoded as a whole first
WEBP_PIXELS_MAX = 16_000_000  # its decoder keeps several copies
FILE_BYTES_MAX = 128 * 2**20  # a BMP of as many pixels as may be is smaller
SIDE_WANTED = 720  # pixels; a larger picture is made smaller
# What Pillow's readers raise for a file that is damaged or made to harm.
DAMAGED = (
    ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, SyntaxError,
    TypeError, ValueError, struct.error,
)  # fmt: skip

Source: TypeAlias = str | Path | bytes | IO[bytes] | Image.Image | NDArray[np.generic]
Grey: TypeAlias = NDArray[np.float32]  # (height, width): 0 = black, 255 = white


class Shades(NamedTuple):
    """A picture's shades of grey, and the picture that they were made of if it has colours."""

    grey: Grey
    coloured: Image.Image | None

    def strongest_colour(self) -> Grey | None:
        """Return the red, green or blue in which the picture varies most; None without colours.

        Ink may be as bright as its paper, and of another colour.
        """
        if self.coloured is None:
            return None
        channels = [np.asarray(_fitted(channel), np.float32) for channel in self.coloured.split()]
        return max(channels, key=lambda channel: float(channel.std()))


def read_shades(source: Source) -> Shades:
    """Read a picture as shades of grey, made smaller if it is large.

    Raises:
        InvalidInput: it cannot be read, is not a picture, or is too large.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if not isinstance(source, (str, Path, bytes, Image.Image)) and not hasattr(source, "read"):
        raise InvalidInput(
            f"got {type(source).__name__}; must be a path, bytes, a binary file, a picture of"
            " Pillow, or an array"
        )
    try:
        if isinstance(source, Image.Image):
            return _to_shades(source)
        content = _content(source)
        # Pillow warns of damaged EXIF data and of many pixels; neither concerns the digit.
        with warnings.catch_warnings(action="ignore"):
            if _is_heif(content):
                raise InvalidInput("HEIC cannot be read; export the photo as a JPEG or PNG")
            with Image.open(io.BytesIO(content), formats=FORMATS) as file:
                _check_size(file)
                if file.format in ("JPEG", "MPO"):
                    file.draft(None, (2 * SIDE_WANTED, 2 * SIDE_WANTED))
                return _to_shades(file)
    except UnidentifiedImageError:
        raise InvalidInput(
            "not a picture that can be read; give a PNG, JPEG, WebP, GIF, BMP or TIFF"
        ) from None
    except Image.DecompressionBombError:
        raise InvalidInput(f"the picture has more than {PIXELS_MAX:,} pixels") from None
    except InvalidInput:
        raise
    except DAMAGED as error:
        raise InvalidInput(f"cannot be read: {_reason(error)}") from None


def _content(source: str | Path | bytes | IO[bytes]) -> bytes:
    if isinstance(source, bytes):
        return source
    if isinstance(source, (str, Path)):
        path = Path(source)
        if path.is_dir():
            raise InvalidInput("a folder without a picture; give a picture's path")
        return read_bounded(path, FILE_BYTES_MAX)
    content = source.read(FILE_BYTES_MAX + 1)
    if not isinstance(content, bytes):
        raise InvalidInput("got a text file; must be opened in binary mode")
    if len(content) > FILE_BYTES_MAX:
        raise InvalidInput(f"cannot be read: the file has more than {FILE_BYTES_MAX:,} bytes")
    return content


def _reason(error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error) or "the file is damaged"
    return " ".join(reason.split())


def _is_heif(content: bytes) -> bool:
    return content[4:8] == b"ftyp" and content[8:12] in (
        b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1",
    )  # fmt: skip


def _check_size(file: Image.Image) -> None:
    by_parts = file.format in ("JPEG", "MPO") and not file.info.get("progressive")
    limit = PIXELS_MAX if by_parts else WHOLE_PIXELS_MAX
    if file.format == "WEBP":
        limit = WEBP_PIXELS_MAX
    if file.width * file.height > limit:
        raise InvalidInput(
            f"the picture has more than {limit:,} pixels, the most for a file of this kind"
            f" ({file.format}); make it smaller"
        )


def _to_shades(picture: Image.Image) -> Shades:
    picture.load()
    exif = picture.getexif()
    if picture.mode in ("1", "P", "PA"):
        picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
    elif picture.mode == "LAB":
        picture = picture.getchannel("L")  # Pillow converts it to no other mode
    elif picture.mode == "La":
        picture = picture.convert("LA")  # the only one
    elif picture.mode.startswith("I;16"):
        picture = picture.convert("I")  # Pillow reduces no other picture of 16 bits
    factor = max(picture.size) // (2 * SIDE_WANTED)
    if picture.mode == "RGBA" and picture.getchannel("A").getextrema() == (255, 255):
        # Opaque, as screenshots are; a large one keeps no colours: a third of the time less.
        picture = picture.convert("L" if factor > 1 else "RGB")
    if factor > 1:
        picture = picture.reduce(factor)
    if picture.mode in ("I", "F"):
        picture = _from_deep(picture)
    picture.getexif().update(exif)
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("LA", "La", "RGBa", "RGBA", "PA") or "transparency" in picture.info:
        greys = [_flattened(picture, paper) for paper in ("white", "black")]
        # White ink without a background shows on black.
        grey = greys[0] if np.ptp(np.asarray(greys[0])) else greys[1]
    else:
        grey = picture.convert("L")
    coloured = picture if picture.mode == "RGB" else None
    return Shades(np.asarray(_fitted(grey), np.float32), coloured)


def _fitted(grey: Image.Image) -> Image.Image:
    if max(grey.size) <= SIDE_WANTED:
        return grey
    scale = SIDE_WANTED / max(grey.size)
    size = max(1, round(grey.width * scale)), max(1, round(grey.height * scale))
    return grey.resize(size, Image.Resampling.BOX)


def _flattened(picture: Image.Image, paper: str) -> Image.Image:
    colours = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", colours.size, paper), colours).convert("L")


def _from_deep(picture: Image.Image) -> Image.Image:
    """Return a picture of more than 8 bits a pixel with 8; a sensor may fill only the lowest 12."""
    values = np.asarray(picture)
    top = float(values.max(initial=0))
    full = next((2**bits - 1 for bits in (8, 10, 12, 14) if top < 2**bits), max(top, 65535))
    return Image.fromarray((values.clip(0, full) * (255 / full)).astype(np.uint8))


def _from_array(array: NDArray[np.generic]) -> Shades:
    """Return an array's shades of grey: (height, width), or with 3 or 4 colours at the end."""
    is_grey = array.ndim == 2
    is_colour = array.ndim == 3 and array.shape[2] in (3, 4)
    if not (is_grey or is_colour) or not array.size:
        raise InvalidInput(
            f"got an array of shape {array.shape}; must be (height, width), (height, width, 3) or"
            " (height, width, 4)"
        )
    if array.dtype.kind not in "buif":
        raise InvalidInput(f"got an array of {array.dtype}; must be numbers")
    if array.shape[0] * array.shape[1] > WHOLE_PIXELS_MAX:
        raise InvalidInput(f"the picture has more than {WHOLE_PIXELS_MAX:,} pixels")
    maximum = 1 if array.dtype.kind in "bf" else 65535 if array.dtype.itemsize > 1 else 255
    if not (array.min() >= 0 and array.max() <= maximum):  # false for NaN, too
        raise InvalidInput(f"got values outside 0..{maximum} in an array of {array.dtype}")
    if array.dtype.kind in "iu" and array.dtype.itemsize > 1:
        maximum = 255 if array.max() <= 255 else 65535
    # By parts, for a whole array of floats would take much memory.
    parts = np.array_split(array, min(64, len(array)))
    pixels = np.concatenate(
        [np.rint(part.astype(np.float32) * (255 / maximum)).astype(np.uint8) for part in parts]
    )
    return _to_shades(Image.fromarray(pixels))
