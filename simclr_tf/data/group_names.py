"""Finds out whether the names of images suggest groups, such as patient012_slice03.png."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence
import posixpath
import re
from typing import NamedTuple

# Words before the number of a group.
_GROUPS = re.compile(
    "patient|pat|pt|subject|subj|sub|case|slide|scene|study|session|sequence|seq|video|vid|clip|"
    "person|participant|specimen|individual|donor|animal|mouse|scan|volume|plate",
    re.IGNORECASE,
)
# Words before the number of an image within its group.
_IMAGES = re.compile(
    "slice|frame|tile|patch|crop|view|image|img|roi|region|slide|section|shot|photo|pic|z|t|time|"
    "fr|frm|scan",
    re.IGNORECASE,
)
# Words whose number is not that of a group.
_NO_GROUPS = re.compile(
    "class|cls|label|category|cat|img|image|dscn?|dcim|pic|photo|picture|train|test|val|valid|"
    "validation|eval|fold|split|part|file|sample|example|id|no|n|page|screenshot",
    re.IGNORECASE,
)
_SEPARATOR = r"[-_. ]"
# Words without numbers, the word and number of a group, and what follows it.
_NAME = re.compile(
    rf"(?:[A-Za-z]+{_SEPARATOR})*?([A-Za-z]+)({_SEPARATOR}?)(\d+)(?:{_SEPARATOR}|/)"
    rf"(?:([A-Za-z]+){_SEPARATOR}?)?\d+(?![A-Za-z\d]).*"
)
# The fraction of names that must suggest groups of the same kind, the fraction of evaluated images
# whose group is trained on, and the mean number of images of a group.
_MOST, _SHARED, _IMAGES_PER_GROUP = 0.9, 0.5, 2


class Suggestion(NamedTuple):
    """Groups that names suggest.

    Attributes:
        expression: a regular expression that finds them.
        groups: number of groups of evaluated images.
        common: number of these that training images are in, too.
        example: one of those.
    """

    expression: str
    groups: int
    common: int
    example: str


def suggest(
    train: Sequence[str], evaluated: Sequence[str], labels: Sequence[int] | None = None
) -> Suggestion | None:
    """Returns the groups that names suggest, if they are in both splits.

    Args:
        train: names of training images, which are paths.
        evaluated: names of evaluated images.
        labels: classes of the evaluated images; None if unknown. What has as many values as there
            are classes, each in one class, is the class and not a group.
    """
    expression = _expression(evaluated)
    if expression is None:
        return None
    search = re.compile(expression).search
    in_train = collections.Counter(match[1] for match in map(search, train) if match)
    found = [match[1] for match in map(search, evaluated) if match]
    in_eval = collections.Counter(found)
    common = sorted(in_train.keys() & in_eval.keys())
    is_common = sum(in_eval[group] for group in common) >= _SHARED * len(evaluated)
    images = in_train.total() + in_eval.total()
    are_many = images >= _IMAGES_PER_GROUP * len(in_train.keys() | in_eval.keys())
    if not (common and is_common and are_many) or in_train.total() < _MOST * len(train):
        return None
    if labels is not None and len(found) == len(labels):
        pairs = len(set(zip(found, labels, strict=True)))
        if pairs == len(in_eval) == len(set(labels)):
            return None
    return Suggestion(expression, len(in_eval), len(common), common[0])


def _expression(names: Sequence[str]) -> str | None:
    """Returns the regular expression of the groups that nearly all names suggest, or None."""
    kinds = collections.Counter(filter(None, map(_kind, names)))
    if not kinds or kinds.most_common(1)[0][1] < _MOST * len(names):
        return None
    (word, separator, in_folder), _ = kinds.most_common(1)[0]
    # A letter alone is also the end of other words.
    start = r"\b" if len(word) == 1 else ""
    expression = rf"({start}{word}{re.escape(separator)}\d+)"
    return expression if in_folder or _is_unique(expression, names) else f"{expression}[^/]*$"


def _is_unique(expression: str, names: Iterable[str]) -> bool:
    """Returns whether the first match in each path is in the name of the file."""
    search = re.compile(expression).search
    return all("/" not in name[match.start() :] for name in names if (match := search(name)))


def _kind(name: str) -> tuple[str, str, bool] | None:
    """Returns the word of the group, what separates its number, and whether a folder has it."""
    *folders, file = posixpath.splitext(name)[0].split("/")
    found = _match(file)
    if found is not None:
        return *found, False
    if folders:
        found = _match(f"{folders[-1]}/{file}", only_words=True)
    return None if found is None else (*found, True)


def _match(name: str, *, only_words: bool = False) -> tuple[str, str] | None:
    """Returns the word of the group and what separates its number from it.

    Args:
        name: name of a file, which the name of its folder may precede.
        only_words: whether the word must be one that is usual for groups.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    word, separator, _, image = match.groups()
    if _GROUPS.fullmatch(word):
        return word, separator
    is_other = only_words or _NO_GROUPS.fullmatch(word) or not _IMAGES.fullmatch(image or "")
    return None if is_other else (word, separator)
