"""Finds out by the first bytes of a file how to decode it, in a graph and at little cost."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

# The branches, one for each kind of file that TensorFlow decodes. A plain file has no EXIF data.
# OTHER is what TensorFlow does not decode, which includes BMP with older headers, other depths or
# compression.
PLAIN_JPEG, JPEG, PLAIN_PNG, PNG, GIF, BMP, OTHER = range(7)
_JPEG_START, _PNG_START = (0, b"\xff\xd8\xff"), (0, b"\x89PN")
# For a branch, what must be at which positions of a file; the first row that matches is taken.
_ROWS: tuple[tuple[int, tuple[tuple[int, bytes], ...]], ...] = (
    # JFIF's segment, and then a table: EXIF data would be between them.
    (PLAIN_JPEG, (_JPEG_START, (3, b"\xe0\0\x10"), (20, b"\xff\xdb"))),
    (JPEG, (_JPEG_START,)),
    # The pixels follow the header: EXIF data would be between them.
    (PLAIN_PNG, (_PNG_START, (12, b"IHDR"), (37, b"IDAT"))),
    (PNG, (_PNG_START,)),
    (GIF, ((0, b"GIF"),)),
    *(
        (BMP, ((0, b"BM"), (14, bytes([size, 0, 0, 0])), (28, bytes([bits, 0, 0, 0, 0, 0]))))
        for size in (40, 52, 56, 64, 108, 124)
        for bits in (8, 24, 32)
    ),
    (OTHER, ()),
)
_HEAD = 41  # bytes


def branch_of(encoded: tf.Tensor) -> tf.Tensor:
    """Returns () int32, the branch for the content of a file, () string."""
    masks = np.zeros((len(_ROWS), _HEAD), np.uint8)
    wanted = np.zeros_like(masks)
    for row, (_, signature) in enumerate(_ROWS):
        for at, some in signature:
            masks[row, at : at + len(some)] = 255
            wanted[row, at : at + len(some)] = list(some)
    head = tf.io.decode_raw(encoded, tf.uint8, fixed_length=_HEAD)
    matches = tf.reduce_all(tf.bitwise.bitwise_and(head, masks) == wanted, axis=1)
    return tf.gather([branch for branch, _ in _ROWS], tf.argmax(matches))
