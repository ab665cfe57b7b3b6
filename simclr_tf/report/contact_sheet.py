"""A contact sheet: rows of images with captions."""

from __future__ import annotations

from collections.abc import Sequence
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from simclr_tf.evaluation import outcome

_MARGIN = 6
_CAPTION = 18  # pixels of height
_TEXT = 13
# Of the lines below an image.
_LINE, _SMALL_TEXT = 14, 11
_FRAME = 3
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
    return draw_tiles(
        [(caption, [outcome.Tile(image) for image in images]) for caption, images in rows]
    )


def draw_tiles(rows: Sequence[tuple[str, Sequence[outcome.Tile]]]) -> np.ndarray:
    """Lays out rows of tiles under their captions, see `draw`.

    Args:
        rows: a caption and tiles each, whose images have one size.

    Returns:
        The picture (h, w, 3) uint8, on white.
    """
    side = _drawn_side(rows[0][1][0].image.shape[0])
    columns = max(len(tiles) for _, tiles in rows)
    lines = max(len(tile.lines) for _, tiles in rows for tile in tiles)
    row_height = _CAPTION + side + lines * _LINE + _MARGIN
    font = ImageFont.load_default(_TEXT)
    longest = math.ceil(max(font.getlength(caption) for caption, _ in rows))
    width = _MARGIN + max(columns * (side + _MARGIN), longest + _MARGIN)
    sheet = Image.new("RGB", (width, _MARGIN + len(rows) * row_height), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (caption, tiles) in enumerate(rows):
        y = _MARGIN + number * row_height
        pen.text((_MARGIN, y), caption, fill="black", font=font)
        for column, tile in enumerate(tiles):
            place = (_MARGIN + column * (side + _MARGIN), y + _CAPTION)
            _draw_tile(sheet, pen, tile, place, side)
    return np.asarray(sheet)


def _draw_tile(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    tile: outcome.Tile,
    place: tuple[int, int],
    side: int,
) -> None:
    """Draws a tile with its upper left corner at a place (x, y)."""
    x, y = place
    pixels = np.round(np.clip(tile.image, 0, 1) * 255).astype(np.uint8)
    sheet.paste(Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST), place)
    if tile.frame is not None:
        box = (x - _FRAME, y - _FRAME, x + side + _FRAME - 1, y + side + _FRAME - 1)
        pen.rectangle(box, outline=tile.frame, width=_FRAME)
    font = ImageFont.load_default(_SMALL_TEXT)
    for number, line in enumerate(tile.lines):
        fitting = _end_that_fits(line, font, side)
        pen.text((x, y + side + _FRAME + number * _LINE - 1), fitting, fill="black", font=font)


def _end_that_fits(
    line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> str:
    """Returns a line, or the end of it that is at most as wide, in pixels."""
    cut = line
    while font.getlength(cut) > width and len(cut) > 1:
        cut = f"…{cut.removeprefix('…')[1:]}"
    return cut


def _drawn_side(side: int) -> int:
    """Returns the smallest multiple of `side` that is at least `_MIN_SIDE`."""
    return side * -(-_MIN_SIDE // side)
