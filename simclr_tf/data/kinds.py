"""Names the kind of an image file by its first bytes, in Python and in a graph."""

from __future__ import annotations

import re

import tensorflow as tf

# First bytes of a file from which its kind is known.
HEAD = 132
JPEG, PNG, BMP, GIF = "JPEG", "PNG", "BMP", "GIF"
WEBP, TIFF, AVIF, HEIC, JPEG_2000 = "WebP", "TIFF", "AVIF", "HEIC", "JPEG 2000"
DICOM = "DICOM"
SUPPORTED = "JPEG, PNG, BMP, GIF, WebP, TIFF, AVIF or JPEG 2000"
CONVERT = "convert it to JPEG or PNG"
# For each kind, what must be at which positions; the first that matches is the kind. Any text may
# begin with "BM": a BMP has reserved bytes too, or a header of a known size.
SIGNATURES: tuple[tuple[str, tuple[tuple[int, bytes], ...]], ...] = (
    (JPEG, ((0, b"\xff\xd8\xff"),)),
    (PNG, ((0, b"\x89PN"),)),
    (GIF, ((0, b"GIF"),)),
    (BMP, ((0, b"BM"), (6, b"\0\0\0\0"))),
    *((BMP, ((0, b"BM"), (14, bytes([size, 0, 0, 0])))) for size in (12, 40, 64, 108, 124)),
    (WEBP, ((0, b"RIFF"), (8, b"WEBP"))),
    (TIFF, ((0, b"II*\0"),)),
    (TIFF, ((0, b"MM\0*"),)),
    (TIFF, ((0, b"II+\0"),)),
    (TIFF, ((0, b"MM\0+"),)),
    (AVIF, ((4, b"ftypavi"),)),
    *((AVIF, ((4, b"ftypm"), (position, b"avif"))) for position in range(16, 40, 4)),
    (HEIC, ((4, b"ftyphe"),)),
    (HEIC, ((4, b"ftypmif1"),)),
    (HEIC, ((4, b"ftypmsf1"),)),
    (JPEG_2000, ((0, b"\0\0\0\x0cjP  "),)),
    (JPEG_2000, ((0, b"\xff\x4f\xff\x51"),)),
    ("JPEG XL", ((0, b"\xff\x0a"),)),
    ("JPEG XL", ((0, b"\0\0\0\x0cJXL "),)),
    ("Photoshop", ((0, b"8BPS"),)),
    (DICOM, ((128, b"DICM"),)),
)
_TEXTS = {
    "an HTML page, not an image": rb"\s*<(!doctype html|html|head)",
    "a pointer of Git LFS, not an image (fetch the image with git lfs pull)": (
        rb"version https://git-lfs"
    ),
    f"an SVG drawing ({CONVERT})": rb"\s*(<\?xml[^>]*>\s*)?<svg",
    f"a PDF document ({CONVERT})": rb"%PDF",
}


class RefusedError(Exception):
    """An image cannot be used; the message is the rest of a sentence."""


def kind_of(encoded: bytes) -> str | None:
    """Returns the kind of a file, from its first `HEAD` bytes or all of it; None if unknown."""
    for kind, signature in SIGNATURES:
        if all(encoded[at : at + len(bytes_)] == bytes_ for at, bytes_ in signature):
            return kind
    return None


def refusal(encoded: bytes, without: str) -> str:
    """Returns why a file is not used, as the rest of a sentence.

    Args:
        encoded: the first bytes of the file, or all of it.
        without: what does not read an image of this kind, as in "which {without} cannot read".
    """
    kind = kind_of(encoded)
    if kind is not None:
        variant = " of a rare variant" if kind == BMP else ""
        remedy = "convert it to .npy" if kind == DICOM else CONVERT
        return f"is a {kind} image{variant}, which {without} cannot read ({remedy})".replace(
            "is a AVIF", "is an AVIF"
        )
    if not encoded:
        return "is empty"
    for what, pattern in _TEXTS.items():
        if re.match(pattern, encoded, re.IGNORECASE):
            return f"is {what}"
    return f"is not a {SUPPORTED} image"


def refusal_in_graph(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the sentence by which a graph refuses a file that TensorFlow does not decode.

    Args:
        encoded: () string, the content of the file.

    Returns:
        () string.
    """
    head = tf.io.decode_raw(encoded, tf.uint8, fixed_length=HEAD)
    matches = []
    for _, signature in SIGNATURES:
        parts = [
            tf.reduce_all(head[at : at + len(bytes_)] == list(bytes_)) for at, bytes_ in signature
        ]
        matches.append(tf.reduce_all(parts))
    sentences = [
        f"The image {refusal(_example(signature), 'TensorFlow alone')}."
        for _, signature in SIGNATURES
    ]
    sentences.append(f"The image is not a {JPEG}, {PNG}, {GIF} or {BMP} file.")
    return tf.gather(sentences, tf.argmax([*matches, True]))


def _example(signature: tuple[tuple[int, bytes], ...]) -> bytes:
    """Returns bytes with a signature."""
    example = bytearray(HEAD)
    for at, bytes_ in signature:
        example[at : at + len(bytes_)] = bytes_
    return bytes(example)
