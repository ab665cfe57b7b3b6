"""A contact sheet: rows of images with captions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_MARGIN = 6
_CAPTION = 18  # pixels of height
_TEXT = 13
# Small images are drawn larger, so that people can see them.
_MIN_SIDE = 96


def draw(rows: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    """Lays out rows of images under their captions.

    Images with less than 96 pixels a side are enlarged by a whole factor to at least that: pixels
    are repeated, not smoothed.

    Args:
        rows: a caption and (n, s, s, 3) float in [0, 1] each.

    Returns:
        The picture (h, w, 3) uint8, on white.
    """
    side = _drawn_side(rows[0][1].shape[1])
    columns = max(len(images) for _, images in rows)
    width = _MARGIN + columns * (side + _MARGIN)
    height = _MARGIN + len(rows) * (_CAPTION + side + _MARGIN)
    sheet = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT)
    for number, (caption, images) in enumerate(rows):
        y = _MARGIN + number * (_CAPTION + side + _MARGIN)
        pen.text((_MARGIN, y), caption, fill="black", font=font)
        for column, image in enumerate(images):
            pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
            picture = Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(picture, (_MARGIN + column * (side + _MARGIN), y + _CAPTION))
    return np.asarray(sheet)


def _drawn_side(side: int) -> int:
    """Returns the smallest multiple of `side` that is at least `_MIN_SIDE`."""
    return side * -(-_MIN_SIDE // side)
