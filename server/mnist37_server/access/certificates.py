"""The validity of the certificates that the server starts with.

Python's ssl module shows the dates of a certificate only after a handshake that accepted it, and
`cryptography`, which reads any, is 18 MB. The two dates are the fifth part of a certificate.
"""

from __future__ import annotations

import logging
import re
import ssl
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from mnist37_server.config import Config, Following
from mnist37_server.errors import CannotStart

WARNING_SECONDS = 30 * 86_400
VERSION_TAG, UTC_TIME_TAG = 0xA0, 0x17
PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

log = logging.getLogger(__name__)


class Validity(NamedTuple):
    """From when and until when a certificate is valid, in seconds since 1970."""

    begins: float
    ends: float


def check_all(config: Config) -> Validity | None:
    """Return when the server's certificate is valid, or None without TLS.

    A certificate that is not valid now, or not in 30 days, is a warning; that of --client-ca too.

    Raises:
        CannotStart: a certificate cannot be read.
    """
    if config.client_ca is not None:
        check_validity("--client-ca", config.client_ca)
    return check_validity("--tls-cert", config.tls_cert) if config.tls_cert is not None else None


def check_following(following: Following) -> None:
    """Log a warning for a certificate towards the owner that is not valid now, or not in 30 days.

    Raises:
        CannotStart: a certificate cannot be read.
    """
    for option, path in (
        (f"{following.flag}-tls-ca", following.tls_ca),
        (f"{following.flag}-tls-cert", following.tls_cert),
    ):
        if path is not None:
            check_validity(option, path)


def check_validity(option: str, path: Path) -> Validity:
    """Return when all certificates of a PEM file are valid; log a warning if that ends soon.

    Raises:
        CannotStart: a certificate of the file cannot be read.
    """
    try:
        blocks = PEM.findall(path.read_text(errors="replace"))
        periods = [read_validity(ssl.PEM_cert_to_DER_cert(block)) for block in blocks]
        validity = Validity(max(p.begins for p in periods), min(p.ends for p in periods))
    except (ValueError, IndexError) as error:
        raise CannotStart(f"{option}: {path} holds a certificate that cannot be read") from error
    now = time.time()
    text = None
    if now < validity.begins:
        text = "the certificate is not valid yet"
    elif now >= validity.ends:
        text = "the certificate has expired"
    elif now >= validity.ends - WARNING_SECONDS:
        text = "the certificate expires within 30 days"
    if text:
        begins, ends = (datetime.fromtimestamp(value, UTC).isoformat() for value in validity)
        log.warning("%s: %s", option, text, extra={"begins": begins, "expires": ends})
    return validity


def read_validity(der: bytes) -> Validity:
    """Return the period of a certificate in DER: RFC 5280, 4.1.

    Raises:
        ValueError, IndexError: the bytes are no certificate.
    """
    _, offset, _ = read_element(der, 0)  # Certificate
    _, offset, _ = read_element(der, offset)  # TBSCertificate
    tag, _, end = read_element(der, offset)
    if tag == VERSION_TAG:
        offset = end
    for _ in ("serialNumber", "signature", "issuer"):
        _, _, offset = read_element(der, offset)
    _, offset, _ = read_element(der, offset)  # Validity
    begins, offset = read_time(der, offset)
    ends, _ = read_time(der, offset)
    return Validity(begins, ends)


def read_time(der: bytes, offset: int) -> tuple[float, int]:
    """Return a time, in seconds since 1970, and the offset of what follows it."""
    tag, start, end = read_element(der, offset)
    text = der[start:end].decode("ascii")
    if tag == UTC_TIME_TAG:  # has two digits of the year
        text = ("19" if text >= "50" else "20") + text
    moment = datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    return moment.timestamp(), end


def read_element(der: bytes, offset: int) -> tuple[int, int, int]:
    """Return the tag of an element, and the offsets at which its content begins and ends."""
    tag, length, start = der[offset], der[offset + 1], offset + 2
    if length >= 0x80:  # the number of bytes that the length has
        size = length - 0x80
        length = int.from_bytes(der[start : start + size])
        start += size
    return tag, start, start + length
