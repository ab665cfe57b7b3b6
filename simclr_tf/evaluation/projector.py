"""Files for the embedding projector of TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
import io

import numpy as np
from PIL import Image

FOLDER = "projector"
_CONFIG = """embeddings {{
  tensor_name: "features"
  tensor_path: "tensors.tsv"
  metadata_path: "metadata.tsv"
{sprite}}}
"""
_SPRITE = """  sprite {{
    image_path: "sprite.png"
    single_image_dim: {side}
    single_image_dim: {side}
  }}
"""


def files(
    points: np.ndarray,
    classes: Sequence[str],
    names: Sequence[str],
    images: np.ndarray | None,
) -> dict[str, str | bytes]:
    """Returns the files that the projector reads.

    Args:
        points: (n, d).
        classes: (n,) names of their classes.
        names: (n,) names of the images.
        images: (n, s, s, 3) uint8, the images; None without.

    Returns:
        Name -> content. All are in the folder "projector", which is the --logdir of TensorBoard.
    """
    rows = zip(map(_one_line, classes), map(_one_line, names), strict=True)
    found: dict[str, str | bytes] = {
        "tensors.tsv": "".join("\t".join(f"{x:.6g}" for x in point) + "\n" for point in points),
        "metadata.tsv": "".join(f"{a}\t{b}\n" for a, b in (("class", "image"), *rows)),
        "projector_config.pbtxt": _CONFIG.format(sprite=""),
    }
    if images is not None:
        found["sprite.png"] = _sprite(images)
        sprite = _SPRITE.format(side=images.shape[1])
        found["projector_config.pbtxt"] = _CONFIG.format(sprite=sprite)
    return {f"{FOLDER}/{name}": content for name, content in found.items()}


def _one_line(text: str) -> str:
    """Returns text without what separates columns and lines."""
    return " ".join(text.split())


def _sprite(images: np.ndarray) -> bytes:
    """Returns the images (n, s, s, 3) as a PNG, row by row in a square grid."""
    side, columns = images.shape[1], int(np.ceil(np.sqrt(len(images))))
    grid = np.full((columns * columns, side, side, 3), 255, np.uint8)
    grid[: len(images)] = images
    sheet = grid.reshape(columns, columns, side, side, 3).swapaxes(1, 2)
    content = io.BytesIO()
    Image.fromarray(sheet.reshape(columns * side, columns * side, 3)).save(content, "PNG")
    return content.getvalue()
