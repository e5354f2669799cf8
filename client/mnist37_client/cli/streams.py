"""The standard streams of the commands: always there, and never a reason to fail for a character.

A terminal that is not UTF-8 lacks the blocks, braille patterns and lines of our drawings. They are
written as ASCII characters there, and every other character that it lacks as an escape sequence.
"""

from __future__ import annotations

import codecs
import io
import os
import sys

PLAINER = "mnist37.plainer"  # the name of the error handler
# click writes UTF-8 to a stream whose encoding is ASCII, so that one gets another name.
PLAIN_ASCII = "mnist37_ascii"

SHADES = dict(zip("░▒▓█", ".:*#", strict=True))
SINGLES = {"…": "...", **SHADES}
LINES = {"\u2500": "-", "\u2502": "|"}  # of the box drawings; all others are corners and crossings
BOX_DRAWINGS = range(0x2500, 0x2580)
BLOCKS = range(0x2580, 0x25A0)
BRAILLE = range(0x2800, 0x2900)
BYTES = range(0xDC80, 0xDD00)  # as which Python decodes bytes of a file name that are not UTF-8


def prepare() -> None:
    """Open the standard streams that are closed, and let them write every text."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # the next file or connection would get this number, and what is printed
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for the whole process
    codecs.register_error(PLAINER, write_plainer)
    codecs.register(find_plain_ascii)
    for number, name in enumerate(("stdout", "stderr"), 1):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            is_ascii = codecs.lookup(stream.encoding).name == "ascii"
            encoding = PLAIN_ASCII if is_ascii else stream.encoding
            stream.reconfigure(encoding=encoding, errors=PLAINER)


def discard_output() -> None:
    """Let what is still to be written to stdout go nowhere: Python would report it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def discard_errors() -> None:
    """Let what stderr did not take go nowhere: Python would end with the status 120 for it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def write_plainer(error: UnicodeError) -> tuple[str, int]:
    """Return what to write in place of the characters that an encoding lacks: an error handler."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(plainer, error.object[error.start : error.end])), error.end


def plainer(character: str) -> str:
    """Return ASCII in place of one character."""
    code = ord(character)
    if character in SINGLES:
        return SINGLES[character]
    if code in BOX_DRAWINGS:
        return LINES.get(character, "+")
    if code in BLOCKS:
        return "#"
    if code in BRAILLE:
        return "." if code > BRAILLE.start else " "
    if code in BYTES:
        return f"\\x{code & 0xFF:02x}"
    return character.encode("ascii", "backslashreplace").decode()


def find_plain_ascii(name: str) -> codecs.CodecInfo | None:
    """Return the codec of ASCII for its other name: a search function of `codecs`."""
    if name != PLAIN_ASCII:
        return None
    ascii_codec = codecs.lookup("ascii")
    return codecs.CodecInfo(
        ascii_codec.encode,
        ascii_codec.decode,
        ascii_codec.streamreader,
        ascii_codec.streamwriter,
        ascii_codec.incrementalencoder,
        ascii_codec.incrementaldecoder,
        name=PLAIN_ASCII,
    )
