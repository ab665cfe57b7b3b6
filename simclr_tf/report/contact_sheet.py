"""A contact sheet: rows of images with captions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_MARGIN = 6
_CAPTION = 18  # pixels of height
_TEXT = 13


def draw(rows: Sequence[tuple[str, np.ndarray]], *, side: int) -> np.ndarray:
    """Lays out rows of images under their captions.

    Args:
        rows: a caption and (n, s, s, 3) float in [0, 1] each.
        side: size of each image in the picture, in pixels; pixels are repeated, not smoothed.

    Returns:
        The picture (h, w, 3) uint8, on white.
    """
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
