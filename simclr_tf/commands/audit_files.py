"""The lists and pictures of an audit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import os
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import storage
from simclr_tf.commands import embedded
from simclr_tf.embeddings import reading
from simclr_tf.evaluation import outcome, outliers
from simclr_tf.report import contact_sheet, evaluation_files

if TYPE_CHECKING:
    from simclr_tf.commands import audit as audit_lib

DUPLICATES, OUTLIERS, LABELS = "duplicates", "outliers", "labels"
# Rows of a picture, and images in a row.
_ROWS, _COLUMNS = 8, 8


def names(folder: str) -> list[str]:
    """Returns the names of the lists and pictures in a folder."""
    possible = [
        f"{name}.{end}" for name in (DUPLICATES, OUTLIERS, LABELS) for end in ("csv", "png")
    ]
    return [name for name in possible if tf.io.gfile.exists(os.path.join(folder, name))]


def write(
    folder: str, config: config_lib.Config, found: reading.Embeddings, result: audit_lib.Audit
) -> None:
    """Writes a list and a picture each of duplicates, outliers and doubtful labels.

    A list or a picture of an earlier audit is removed if there is nothing to write.

    Args:
        folder: the folder to write to.
        config: the settings.
        found: the embeddings.
        result: what was found.

    Raises:
        UserError: if a file cannot be written.
    """
    unusual = np.argsort(-result.scores, kind="stable")
    unusual = unusual[result.scores[unusual] >= outliers.CUTOFF]
    lists = {
        DUPLICATES: _duplicates(found, result),
        OUTLIERS: _outliers(found, result, unusual),
        LABELS: None if result.doubtful is None else _labels(found, result),
    }
    for name, rows in lists.items():
        path = os.path.join(folder, f"{name}.csv")
        if rows is not None:
            storage.replace(path, evaluation_files.to_csv(rows))
        elif tf.io.gfile.exists(path):
            tf.io.gfile.remove(path)
    drawn = {
        DUPLICATES: _rows_of_groups(result),
        OUTLIERS: _in_rows(unusual),
        LABELS: _in_rows([] if result.doubtful is None else result.doubtful.rows),
    }
    captions = {
        DUPLICATES: lambda row: (f"{result.cosine[row]:.4f}", _of(found, row), found.names[row]),
        OUTLIERS: lambda row: (f"{result.scores[row]:.1f}", _of(found, row), found.names[row]),
        LABELS: _suggestions(found, result),
    }
    wanted = [int(row) for rows in drawn.values() for _, some in rows for row in some]
    images = embedded.drawn_images(found, config, wanted) if wanted else {}
    for name, rows_of_images in drawn.items():
        path = os.path.join(folder, f"{name}.png")
        if rows_of_images:
            _draw(path, found, rows_of_images, images, captions[name])
        elif tf.io.gfile.exists(path):
            tf.io.gfile.remove(path)


def _of(found: reading.Embeddings, row: int) -> str:
    """Returns the split and the label of an image."""
    return " ".join(filter(None, (found.splits[row], found.labels[row])))


def _duplicates(found: reading.Embeddings, result: audit_lib.Audit) -> list[list[str]]:
    group = result.groups.group
    rows = np.flatnonzero(group >= 0)
    rows = rows[np.argsort(group[rows], kind="stable")]
    table = [["group", "kind", "name", "split", "label", "cosine_with_nearest"]]
    for row in rows:
        kind = "exact" if result.groups.exact[row] else "near"
        table.append([str(group[row]), kind, *_described(found, row), f"{result.cosine[row]:.6f}"])
    return table


def _outliers(
    found: reading.Embeddings, result: audit_lib.Audit, unusual: np.ndarray
) -> list[list[str]]:
    table = [["name", "split", "label", "mean_distance", "score"]]
    for row in unusual:
        numbers = (f"{result.distances[row]:.6f}", f"{result.scores[row]:.2f}")
        table.append([*_described(found, row), *numbers])
    return table


def _labels(found: reading.Embeddings, result: audit_lib.Audit) -> list[list[str]]:
    table = [["name", "split", "label", "probability", "suggested", "probability_of_suggested"]]
    if result.doubtful is None:
        return table
    doubtful = result.doubtful
    for number, row in enumerate(doubtful.rows):
        table.append(
            [
                *_described(found, row),
                f"{doubtful.given_probability[number]:.6f}",
                result.classes[doubtful.suggested[number]],
                f"{doubtful.suggested_probability[number]:.6f}",
            ]
        )
    return table


def _described(found: reading.Embeddings, row: int) -> tuple[str, str, str]:
    return found.names[row], found.splits[row], found.labels[row] or ""


def _suggestions(
    found: reading.Embeddings, result: audit_lib.Audit
) -> Callable[[int], tuple[str, ...]]:
    """Returns the function from an image with a doubtful label to the lines below it."""
    if result.doubtful is None:
        return lambda _: ()
    suggested = {
        int(row): result.classes[label]
        for row, label in zip(result.doubtful.rows, result.doubtful.suggested, strict=True)
    }
    return lambda row: (f"is: {found.labels[row]}", f"like: {suggested[row]}", found.names[row])


def _rows_of_groups(result: audit_lib.Audit) -> list[tuple[str, np.ndarray]]:
    """Returns the first groups of duplicates, each as a row with its caption."""
    rows = []
    for number in range(min(result.groups.num_groups, _ROWS)):
        members = np.flatnonzero(result.groups.group == number)
        kind = "exact" if result.groups.exact[members].any() else "near"
        caption = f"{number}: {kind}, {len(members)} images"
        rows.append((caption, members[:_COLUMNS]))
    return rows


def _in_rows(images: Sequence[int] | np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Returns the first images in rows with captions."""
    shown = np.array(images[: _ROWS * _COLUMNS], np.int64)
    return [
        (f"{start + 1} to {min(start + _COLUMNS, len(shown))}", shown[start : start + _COLUMNS])
        for start in range(0, len(shown), _COLUMNS)
    ]


def _draw(
    path: str,
    found: reading.Embeddings,
    rows: list[tuple[str, np.ndarray]],
    images: dict[int, np.ndarray],
    lines: Callable[[int], tuple[str, ...]],
) -> None:
    grey = embedded.grey(found)
    sheet = [
        (
            caption,
            [outcome.Tile(images.get(int(row), grey), lines(int(row))) for row in some],
        )
        for caption, some in rows
    ]
    storage.write_png(path, contact_sheet.draw_tiles(sheet))
