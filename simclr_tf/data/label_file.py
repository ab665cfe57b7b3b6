"""Labels from a CSV file with the columns file, label and, optionally, split and a group.

The file is UTF-8 text, separated by commas, semicolons or tabs. Its first line names the columns,
in any case and order; further columns are ignored. An empty label means none.
"""

from __future__ import annotations

from collections.abc import Iterator
import csv
import functools
import io
from typing import NamedTuple

import tensorflow as tf

from simclr_tf import errors, text
from simclr_tf.data import layout, split_names

_DELIMITERS = ",;\t"
_COLUMNS = ("file", "label", "split")
# Key of the index of the column of groups, which is the name of no column.
_GROUP = "\0group"


class Row(NamedTuple):
    """A line of the file.

    Attributes:
        file: path of an image.
        label: name of its class; empty for none.
        split: name of its split; empty for none, None if there is no such column.
        group: its group, such as a patient; None if images are independent.
        line: number of the line, from 1.
    """

    file: str
    label: str
    split: str | None
    group: str | None
    line: int


def read(path: str, group: str | None = None) -> list[Row]:
    """Reads a file of labels.

    Args:
        path: a path that TensorFlow can read.
        group: name of the column of the groups of images. If the file has no such column, the rows
            have no groups.

    Raises:
        errors.UserError: if it cannot be read, or is not such a file.
    """
    content = _content(path)
    try:
        columns, delimiter = _header(path, content, group)
        return list(_rows(path, content, columns, delimiter))
    except csv.Error as error:
        raise errors.UserError(
            f"The file of labels {path!r} is not valid CSV ({error}); save it again, with file "
            "names that contain quotes or separators in double quotes."
        ) from error


def _content(path: str) -> str:
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            return file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise errors.UserError(
            f"The file of labels {path!r} is not UTF-8 text (its byte {error.start} is "
            f"{error.object[error.start]:#x}); save it as UTF-8."
        ) from error
    except (tf.errors.OpError, OSError) as error:
        problem = f"cannot be read ({text.reason(error)})"
        if isinstance(error, tf.errors.NotFoundError):
            problem = "does not exist"
        raise errors.UserError(
            f"The file of labels {path!r} {problem}; name a CSV file with the columns file, label "
            "and, optionally, split."
        ) from error


def _header(path: str, content: str, group: str | None) -> tuple[dict[str, int], str]:
    """Returns the index of each column, and the delimiter.

    Raises:
        errors.UserError: if a column is missing or twice.
    """
    first: list[str] = []
    for delimiter in _DELIMITERS:
        names = next(_records(content, delimiter), [])
        names = [name.strip().lower() for name in names]
        if {"file", "label"} <= set(names):
            twice = [name for name in _COLUMNS if names.count(name) > 1]
            if twice:
                raise errors.UserError(
                    f"The file of labels {path!r} has {names.count(twice[0])} columns "
                    f"{twice[0]!r}; rename all but one."
                )
            columns = {name: names.index(name) for name in _COLUMNS if name in names}
            column = (group or "").strip().lower()
            return columns | ({_GROUP: names.index(column)} if column in names else {}), delimiter
        first = max(first, names, key=len)
    raise errors.UserError(
        f"The file of labels {path!r} must name the columns file, label and, optionally, split in "
        f"its first line, which is {text.shortened(first, 5) or 'empty'!r}; add that line, or "
        "rename its columns."
    )


def _records(content: str, delimiter: str) -> Iterator[list[str]]:
    return iter(csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True))


def _rows(path: str, content: str, columns: dict[str, int], delimiter: str) -> Iterator[Row]:
    """Yields the rows below the header.

    Raises:
        errors.UserError: for a row with too many fields or without a file.
    """
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    width = len(next(reader))
    # Millions of rows have few labels and splits.
    label_of, split_of = functools.cache(layout.usual_form), functools.cache(split_names.of_folder)
    for cells in reader:
        if not any(map(str.strip, cells)):
            continue
        if len(cells) > width:
            raise errors.UserError(
                f"Line {reader.line_num:,} of the file of labels {path!r} has {len(cells)} fields, "
                f"and the first line {width}; write fields that contain a separator in double "
                "quotes."
            )
        cells += [""] * (width - len(cells))
        file, label = cells[columns["file"]], cells[columns["label"]].strip()
        if not file.strip():
            raise errors.UserError(
                f"Line {reader.line_num:,} of the file of labels {path!r} names no file; add it, "
                "or remove the line."
            )
        split = None
        if "split" in columns:
            split = split_of(cells[columns["split"]].strip())
        group = cells[columns[_GROUP]].strip() if _GROUP in columns else None
        if group == "":
            raise errors.UserError(
                f"Line {reader.line_num:,} of the file of labels {path!r} has no group for {file}; "
                "add it, or give another --group."
            )
        yield Row(file, label_of(label), split, group, reader.line_num)
