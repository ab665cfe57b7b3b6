"""The columns of a file of labels that give an image several labels.

There are two forms:

  labels          the classes that the image shows, separated by | or by ;, as in cat|dog. An empty
                  cell means that it shows none of them.
  CLASS, CLASS    a column for each class: 1 if the image shows it, 0 if not, and an empty cell if
                  that is not known. All columns but file, split and that of the group are classes.

What could be read in two ways is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from simclr_tf import errors, text
from simclr_tf.data import indicators, layout

SEPARATORS = "|;"
_LABELS = "labels"
_VALUES = {"1": indicators.PRESENT, "0": indicators.ABSENT, "": indicators.NEITHER}
# Which columns of classes may also have, and which are refused: -1 means not known, or no.
_REFUSED_VALUES = ("-1", "-1.0", "true", "false", "yes", "no", "t", "f", "y", "n")
_WRITTEN_AS_NUMBERS = {"1.0": "1", "0.0": "0"}  # Of programs that write all columns as fractions.


class Columns(NamedTuple):
    """Columns of labels.

    Attributes:
        indices: their positions.
        class_names: a class for each of them; None if it is the one column of lists.
    """

    indices: tuple[int, ...]
    class_names: tuple[str, ...] | None


class Cells(NamedTuple):
    """The cells of an image in these columns.

    Attributes:
        line: number of the line, from 1.
        texts: one for each column.
    """

    line: int
    texts: tuple[str, ...]


class Parsed(NamedTuple):
    """The labels of images.

    Attributes:
        class_names: names of the c classes, in order.
        values: of each image (c,), see `indicators`.
    """

    class_names: tuple[str, ...]
    values: list[tuple[int, ...]]


def find(path: str, names: Sequence[str], *, taken: set[int]) -> Columns | None:
    """Returns the columns of several labels; None if there is a column of one label.

    Args:
        path: path of the file, for messages.
        names: names of all columns, as they are written.
        taken: positions of the columns that are something else.

    Raises:
        errors.UserError: if there are columns of both, or a class has two.
    """
    lower = [name.lower() for name in names]
    if _LABELS in lower:
        if "label" in lower or lower.count(_LABELS) > 1:
            raise errors.UserError(
                f"The file of labels {path!r} has more than one column named label or labels; "
                "label is for one class of each image, labels for several. Rename all but one."
            )
        return Columns((lower.index(_LABELS),), None)
    if "label" in lower:
        return None
    indices = tuple(index for index in range(len(names)) if index not in taken)
    classes = tuple(layout.usual_form(names[index]) for index in indices)
    for name in classes:
        if not name or classes.count(name) > 1:
            raise errors.UserError(
                f"The file of labels {path!r} has no column label or labels, so that all others "
                f"are classes, and {classes.count(name)} of them are named {name!r}; give each its "
                "own name."
            )
    return Columns(indices, classes) if indices else None


def may_have_classes(columns: Columns, cells: Sequence[Cells]) -> bool:
    """Returns whether there are labels: in lists, or some column of yes or no in any form."""
    by_column = zip(*(one.texts for one in cells))
    return columns.class_names is None or any(all(map(_is_like_value, one)) for one in by_column)


def parse(path: str, columns: Columns, cells: Sequence[Cells]) -> Parsed:
    """Returns the labels of the images.

    Args:
        path: path of the file, for messages.
        columns: the columns.
        cells: of each image.

    Raises:
        errors.UserError: if a cell can be read in two ways, or in none.
    """
    if columns.class_names is None:
        return _lists(path, cells)
    return Parsed(
        columns.class_names, [_of_columns(path, columns.class_names, one) for one in cells]
    )


def in_words(values: Sequence[int], class_names: Sequence[str]) -> str:
    """Returns the labels of an image as text, the same for the same labels."""
    named = list(zip(class_names, values, strict=True))
    shown = "|".join(name for name, value in named if value == indicators.PRESENT)
    unknown = "|".join(name for name, value in named if value == indicators.NEITHER)
    return f"{shown} (not known: {unknown})" if unknown else shown


def notes_on_one_label(labels: Sequence[str]) -> tuple[str, ...]:
    """Returns a sentence if labels of one class look like those of several."""
    several = sorted({label for label in labels if "|" in label})
    if not several:
        return ()
    return (
        f"Each label, such as {several[0]!r}, is taken as one class. If | separates several "
        "classes, rename the column label to labels.",
    )


def _is_like_value(written: str) -> bool:
    return _value(written) is not None or written.lower() in _REFUSED_VALUES


def _value(written: str) -> int | None:
    return _VALUES.get(_WRITTEN_AS_NUMBERS.get(written, written))


def _of_columns(path: str, class_names: Sequence[str], cells: Cells) -> tuple[int, ...]:
    values = []
    for name, written in zip(class_names, cells.texts, strict=True):
        value = _value(written)
        if value is None:
            raise errors.UserError(
                f"The file of labels {path!r} has no column label or labels, so that {name!r} is "
                f"taken as a class, and has {written!r} in it in line {cells.line:,}; write 1 if "
                "an image shows the class, 0 if not, and nothing if that is not known, or remove "
                "the column (a column of groups is named by --group)."
            )
        values.append(value)
    return tuple(values)


def _lists(path: str, cells: Sequence[Cells]) -> Parsed:
    separator = _separator(path, cells)
    lists = []
    for one in cells:
        parts = [part.strip() for part in one.texts[0].split(separator)] if one.texts[0] else []
        if "" in parts:
            raise errors.UserError(
                f"Line {one.line:,} of the file of labels {path!r} has an empty label in "
                f"{one.texts[0]!r}; remove the {separator} beside it."
            )
        lists.append({layout.usual_form(part) for part in parts})
    class_names = tuple(sorted(set().union(*lists)))
    if cells and not class_names:
        raise errors.UserError(
            f"The column labels of {path!r} is empty in all lines, so that there are no classes; "
            "fill it in, or read the images without labels (--labels=none)."
        )
    return Parsed(
        class_names,
        [
            tuple(
                indicators.PRESENT if name in shown else indicators.ABSENT for name in class_names
            )
            for shown in lists
        ],
    )


def _separator(path: str, cells: Sequence[Cells]) -> str:
    """Returns what separates the labels of an image.

    Raises:
        errors.UserError: if more than one may.
    """
    uses = {mark: [one for one in cells if mark in one.texts[0]] for mark in (*SEPARATORS, ",")}
    used = [mark for mark in SEPARATORS if uses[mark]]
    if len(used) > 1:
        lines = text.shortened([f"{uses[mark][0].line:,}" for mark in used])
        raise errors.UserError(
            f"The column labels of {path!r} has both | and ; (lines {lines}), and one of them "
            "separates labels; use | between labels, and no ; in their names."
        )
    if not used and uses[","]:
        first = uses[","][0]
        raise errors.UserError(
            f"The column labels of {path!r} has {first.texts[0]!r} in line {first.line:,}, and a "
            "comma may be part of a name; use | between labels, or name the column label if it is "
            "one class."
        )
    return used[0] if used else SEPARATORS[0]
