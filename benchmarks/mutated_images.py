"""Damages small images of every kind at random, as disks, downloads and programs do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import io
import struct
import zlib

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 23, 17
_EXTREMES = (0, 1, 2, 255, 65_535, 2**31 - 1, 2**31, 2**32 - 1)
# Numbers of this many first bytes are changed: headers.
_HEADER = 300


def originals() -> list[bytes]:
    """Returns encoded images of WIDTH x HEIGHT, of every kind and mode."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    other = picture.transpose(Image.Transpose.ROTATE_180).convert("RGB")
    forms: list[tuple[str, str, dict]] = [
        *(("JPEG", mode, {}) for mode in ("L", "RGB", "CMYK")),
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "RGB", {"exif": exif}),
        *(("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
        ("PNG", "RGB", {"exif": exif}),
        *(("BMP", mode, {}) for mode in ("1", "L", "P", "RGB", "RGBA")),
        *(("GIF", mode, {}) for mode in ("L", "P")),
        ("GIF", "RGB", {"save_all": True, "append_images": [other]}),
        ("WEBP", "RGB", {}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("WEBP", "RGB", {"exif": exif}),
        *(("TIFF", mode, {}) for mode in ("1", "L", "RGB", "RGBA", "CMYK", "I;16")),
        *(("TIFF", "RGB", {"compression": name}) for name in ("tiff_lzw", "tiff_deflate", "jpeg")),
        ("TIFF", "RGB", {"exif": exif}),
    ]
    return [_encoded(picture, *form) for form in forms]


def _encoded(picture: Image.Image, kind: str, mode: str, options: dict) -> bytes:
    if mode == "I;16":
        image = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    else:
        image = picture.convert(mode)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def mutated(images: Sequence[bytes], seed: int, index: int) -> bytes:
    """Returns one of the images with one to three kinds of damage, a function of seed and index."""
    rng = np.random.default_rng([seed, index])
    content = bytearray(images[rng.integers(len(images))])
    for _ in range(rng.integers(1, 4)):
        damage = _DAMAGES[rng.integers(len(_DAMAGES))]
        content = damage(content, rng, images)
    if content.startswith(b"\x89PNG") and rng.random() < 0.7:
        content = _with_checksums(content)
    return bytes(content)


def _flip(content: bytearray, rng: np.random.Generator, images: Sequence[bytes]) -> bytearray:
    """Changes a few bytes, half of the time of the header."""
    end = min(len(content), _HEADER if rng.random() < 0.5 else 2**31)
    for _ in range(rng.integers(1, 9) if end else 0):
        content[rng.integers(end)] ^= 1 << rng.integers(8)
    return content


def _truncate(content: bytearray, rng: np.random.Generator, images: Sequence[bytes]) -> bytearray:
    return content[: rng.integers(len(content) + 1)]


def _splice(content: bytearray, rng: np.random.Generator, images: Sequence[bytes]) -> bytearray:
    """Puts the header of one image before the rest of another."""
    other = images[rng.integers(len(images))]
    return content[: rng.integers(1, 64)] + other[rng.integers(1, 64) :]


def _set_number(content: bytearray, rng: np.random.Generator, images: Sequence[bytes]) -> bytearray:
    """Writes an extreme number into the header, as a length or a position may be."""
    number = struct.pack(_byte_order(rng) + "I", _EXTREMES[rng.integers(len(_EXTREMES))])
    number = number[: 2 ** rng.integers(3)]
    at = rng.integers(min(len(content), _HEADER) + 1)
    return content[:at] + number + content[at + len(number) :]


def _swap_numbers(
    content: bytearray, rng: np.random.Generator, images: Sequence[bytes]
) -> bytearray:
    """Exchanges two numbers of the header, such as two lengths."""
    if len(content) < 16:
        return content
    a, b = rng.integers(min(len(content), _HEADER) - 4, size=2)
    content[a : a + 4], content[b : b + 4] = content[b : b + 4], content[a : a + 4]
    return content


def _enlarge(content: bytearray, rng: np.random.Generator, images: Sequence[bytes]) -> bytearray:
    """Makes the width or the height huge, wherever it is in the header."""
    size = (WIDTH, HEIGHT)[rng.integers(2)]
    form = _byte_order(rng) + "HI"[rng.integers(2)]
    most = 65_536 if form[1] == "H" else 2**32
    number = struct.pack(form, size)
    huge = struct.pack(form, int(min(most - 1, 2 ** rng.uniform(8, 32.1))))
    at = content.find(number, 0, _HEADER)
    while at >= 0:
        content[at : at + len(number)] = huge
        at = content.find(number, at + len(number), _HEADER)
    return content


def _repeat(content: bytearray, rng: np.random.Generator, images: Sequence[bytes]) -> bytearray:
    """Repeats or removes some bytes, such as a block."""
    start, stop = sorted(rng.integers(len(content) + 1, size=2))
    some = content[start:stop] * int(rng.choice([0, 2, 9]))
    return content[:start] + some + content[stop:]


_DAMAGES: tuple[Callable[[bytearray, np.random.Generator, Sequence[bytes]], bytearray], ...] = (
    _flip,
    _truncate,
    _splice,
    _set_number,
    _swap_numbers,
    _enlarge,
    _repeat,
)


def _byte_order(rng: np.random.Generator) -> str:
    return "<>"[rng.integers(2)]


def _with_checksums(content: bytearray) -> bytearray:
    """Corrects the checksums of a PNG's chunks, without which hardly any damage is looked at."""
    at = 8
    while at + 12 <= len(content):
        end = at + 8 + int.from_bytes(content[at : at + 4], "big")
        if end + 4 > len(content):
            break
        content[end : end + 4] = struct.pack(">I", zlib.crc32(content[at + 4 : end]))
        at = end + 4
    return content
