"""Labels from a CSV file with the columns file, label and, optionally, split and a group.

The file is UTF-8 text, separated by commas, semicolons or tabs. Its first line names the columns,
in any case and order; further columns are ignored. An empty label means none.

Images may have several labels: in a column `labels`, or in a column for each class, see
`several_columns`.
"""

from __future__ import annotations

from collections.abc import Iterator
import csv
import functools
import io
from typing import NamedTuple

import tensorflow as tf

from simclr_tf import errors, text
from simclr_tf.data import layout, several_columns, split_names

_DELIMITERS = ",;\t"
_COLUMNS = ("file", "label", "split")
# Key of the index of the column of groups, which is the name of no column.
_GROUP = "\0group"


class Row(NamedTuple):
    """A line of the file.

    Attributes:
        file: path of an image.
        label: name of its class, or its labels as they are written; empty for none.
        split: name of its split; empty for none, None if there is no such column.
        group: its group, such as a patient; None if images are independent.
        values: (c,) its labels, see `indicators`; None if images have one label.
        line: number of the line, from 1.
    """

    file: str
    label: str
    split: str | None
    group: str | None
    values: tuple[int, ...] | None
    line: int


class Labels(NamedTuple):
    """The content of the file.

    Attributes:
        rows: its lines.
        class_names: the classes of images that may have several; None if they have one label.
        notes: sentences for the user.
    """

    rows: list[Row]
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


def read(path: str, group: str | None = None) -> Labels:
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
        rows = list(_rows(path, content, columns, delimiter))
    except csv.Error as error:
        raise errors.UserError(
            f"The file of labels {path!r} is not valid CSV ({error}); save it again, with file "
            "names that contain quotes or separators in double quotes."
        ) from error
    cells = [several_columns.Cells(row.line, texts) for row, texts in rows]
    if columns.several is None:
        notes = several_columns.notes_on_one_label([row.label for row, _ in rows])
        return Labels([row for row, _ in rows], notes=notes)
    if rows and not several_columns.may_have_classes(columns.several, cells):
        raise _without_label(path, columns.names)
    found = several_columns.parse(path, columns.several, cells)
    of_images = [
        row._replace(values=values, label=several_columns.in_words(values, found.class_names))
        for (row, _), values in zip(rows, found.values, strict=True)
    ]
    return Labels(of_images, found.class_names)


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


class _Columns(NamedTuple):
    """Which columns a file has.

    Attributes:
        names: their names.
        positions: name of a column -> its index.
        several: the columns of several labels; None if images have one label.
    """

    names: list[str]
    positions: dict[str, int]
    several: several_columns.Columns | None


def _header(path: str, content: str, group: str | None) -> tuple[_Columns, str]:
    """Returns the columns, and the delimiter.

    Raises:
        errors.UserError: if a column is missing or twice.
    """
    first: list[str] = []
    for delimiter in _DELIMITERS:
        written = next(_records(content, delimiter), [])
        written = [name.strip() for name in written]
        names = [name.lower() for name in written]
        if "file" in names and len(names) > 1:
            twice = [name for name in _COLUMNS if names.count(name) > 1]
            if twice:
                raise errors.UserError(
                    f"The file of labels {path!r} has {names.count(twice[0])} columns "
                    f"{twice[0]!r}; rename all but one."
                )
            index = {name: names.index(name) for name in _COLUMNS if name in names}
            column = (group or "").strip().lower()
            index |= {_GROUP: names.index(column)} if column in names else {}
            several = several_columns.find(path, written, taken=set(index.values()))
            if "label" in index or several is not None:
                return _Columns(names, index, several), delimiter
        first = max(first, names, key=len)
    raise _without_label(path, first)


def _without_label(path: str, names: list[str]) -> errors.UserError:
    first = repr(text.shortened(names, 5)) if any(names) else "empty"
    return errors.UserError(
        f"The file of labels {path!r} must name the columns file, label and, optionally, split in "
        f"its first line, which is {first}; add that line, or "
        "rename its columns. Of images with several labels, the columns are file and labels, or "
        "file and one column of 0 and 1 for each class."
    )


def _records(content: str, delimiter: str) -> Iterator[list[str]]:
    return iter(csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True))


def _rows(
    path: str, content: str, found: _Columns, delimiter: str
) -> Iterator[tuple[Row, tuple[str, ...]]]:
    """Yields the rows below the header, each with its cells of several labels.

    Raises:
        errors.UserError: for a row with too many fields, without a file, or without the cells of
            some classes.
    """
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    width = len(next(reader))
    columns, several = found.positions, () if found.several is None else found.several.indices
    has_column_per_class = found.several is not None and found.several.class_names is not None
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
        if len(cells) < width and has_column_per_class:  # An empty cell would mean not known.
            raise errors.UserError(
                f"Line {reader.line_num:,} of the file of labels {path!r} has {len(cells)} fields, "
                f"and the first line {width}; give each class a cell, which is empty if the label "
                "is not known."
            )
        cells += [""] * (width - len(cells))
        file = cells[columns["file"]]
        label = cells[columns["label"]].strip() if "label" in columns else ""
        texts = tuple(cells[index].strip() for index in several)
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
        yield Row(file, label_of(label), split, group, None, reader.line_num), texts
