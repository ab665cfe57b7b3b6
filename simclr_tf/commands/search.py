"""The search command: finds the embedded images that are nearest to a query."""

from __future__ import annotations

import os

import numpy as np
import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import console, errors, paths, pixel_format, storage, text
from simclr_tf.commands import embedded
from simclr_tf.data import evaluation_images, inspection, scan
from simclr_tf.data import shown as shown_lib
from simclr_tf.embeddings import reading
from simclr_tf.evaluation import neighbours, outcome
from simclr_tf.report import contact_sheet, evaluation_files
from simclr_tf.runs import weights as weights_lib

TABLE, PICTURE = "neighbours.csv", "neighbours.png"
# The most queries that the terminal and the picture show; the CSV file has all.
_PRINTED, _DRAWN = 5, 20
_HEADER = ("query", "rank", "name", "split", "label", "cosine")


def search(config: config_lib.Config, weights: weights_lib.Weights | None) -> None:
    """Finds the nearest images of --embeddings for each image of --query.

    Writes neighbours.csv and neighbours.png to --model_dir, or to EMBEDDINGS/search.

    Args:
        config: the settings.
        weights: the weights of --checkpoint; None opens those that the embeddings were made with.

    Raises:
        UserError: if a query cannot be read, or the weights are other ones.
    """
    assert config.embeddings is not None and config.query is not None
    found = reading.open_folder(config.embeddings)
    files = query_files(config.query)
    queries = [_read(path, found.manifest.image_size, embedded.pixels_of(found)) for path in files]
    model = embedded.network(found, weights)
    output = embedded.output_folder(config, "search")
    vectors = embedded.features_of(model, queries, config.eval_batch_size)
    k = min(config.neighbours, len(found.names))
    indices, cosines = neighbours.nearest_in_parts(vectors, found.parts, k)
    rows = [
        [path, str(rank), *_described(found, row), f"{cosine:.6f}"]
        for path, near, similar in zip(files, indices, cosines, strict=True)
        for rank, (row, cosine) in enumerate(zip(near, similar, strict=True), 1)
    ]
    storage.replace(os.path.join(output, TABLE), evaluation_files.to_csv([list(_HEADER), *rows]))
    _print(found, files, rows, k)
    _draw(config, found, files[:_DRAWN], queries, indices, cosines, os.path.join(output, PICTURE))
    console.say(f"{output}: {TABLE}, {PICTURE}.")


def query_files(query: str) -> list[str]:
    """Returns the image files that --query names, those of folders in alphabetical order.

    Raises:
        ArgumentError: if one is missing, or a folder holds no images.
    """
    files: list[str] = []
    for path in filter(None, map(str.strip, query.split(","))):
        path = paths.absolute(path)
        if tf.io.gfile.isdir(path):
            images = sorted(scan.scan(path, once=True).images)
            if not images:
                raise errors.ArgumentError(
                    "query", query, f"names the folder {path}, which holds no images; name others."
                )
            files += [f"{path}/{name}" for name in images]
        elif tf.io.gfile.exists(path):
            files.append(path)
        else:
            raise errors.ArgumentError(
                "query", query, f"names {path}, which does not exist; check the path."
            )
    if not files:
        raise errors.ArgumentError("query", query, "names no file; name image files or folders.")
    return files


def _read(
    path: str, image_size: int, pixels: pixel_format.PixelFormat = pixel_format.RGB
) -> np.ndarray:
    """Returns a query (s, s, c) as evaluation would see it.

    Raises:
        ArgumentError: if it is not a readable image.
    """
    content = b""
    try:
        content = tf.io.read_file(path).numpy()
        return evaluation_images.decoded(tf.constant(content), image_size, pixels).numpy()
    except tf.errors.OpError as error:
        why = (
            inspection.why_unreadable(error, content, pixels=pixels)
            if content
            else f"cannot be read ({text.reason(error)})"
        )
        raise errors.ArgumentError(
            "query", path, f"is not a readable image: it {why}; leave it out."
        ) from error


def _described(found: reading.Embeddings, row: int) -> tuple[str, str, str]:
    return found.names[row], found.splits[row], found.labels[row] or ""


def _print(found: reading.Embeddings, files: list[str], rows: list[list[str]], k: int) -> None:
    total = text.count(len(found.names), "image")
    for number, path in enumerate(files[:_PRINTED]):
        mine = rows[number * k : (number + 1) * k]
        table = [[*row[1:-1], f"{float(row[-1]):.3f}"] for row in mine]
        console.say(f"The nearest of {total} to {path}:")
        console.table(os.path.basename(path), list(_HEADER[1:]), table)
    if len(files) > _PRINTED:
        console.say(f"... and {len(files) - _PRINTED:,} more queries, which are in {TABLE}.")


def _draw(
    config: config_lib.Config,
    found: reading.Embeddings,
    files: list[str],
    queries: list[np.ndarray],
    indices: np.ndarray,
    cosines: np.ndarray,
    path: str,
) -> None:
    """Draws a row for each of the first queries: the query, then the nearest images."""
    shown = indices[: len(files)]
    images = embedded.drawn_images(found, config, map(int, shown.ravel()))
    channels = embedded.shown_channels(found, config)
    drawn = shown_lib.in_words(embedded.pixels_of(found), channels)
    rows = []
    for number, file in enumerate(files):
        tiles = [outcome.Tile(shown_lib.as_rgb(queries[number], channels), ("query",), "blue")]
        for row, cosine in zip(shown[number], cosines[number], strict=True):
            lines = (f"{cosine:.3f}", found.labels[row] or "", found.names[row])
            tiles.append(outcome.Tile(images.get(int(row), embedded.grey(found)), lines, None))
        rows.append((shown_lib.with_channels(file, drawn), tiles))
    storage.write_png(path, contact_sheet.draw_tiles(rows))
