"""Finds the TFRecord files that a pattern names, and sorts them into splits by their names.

All files belong to the split `train`, except those whose names say another one:

  validation-00000-of-00010              the split `validation`
  cifar-test.tfrecord-00000-of-00002     the split `test`
  val_000.tfrecord, val.tfrecord         the split `val`
  test/000.tfrecord                      the split `test`, if the files are in several folders
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
import glob
import os
import re

import tensorflow as tf

from simclr_tf import errors, paths, storage, text
from simclr_tf.data import split_names

PREFIX = "tfrecord:"
_SHARD = re.compile(
    r"(?P<stem>.*?)[-_.]?(?P<index>\d+)(-of-(?P<count>\d+))?(?P<end>(\.[A-Za-z]+)*)"
)
_EXTENSIONS = ("tfrecord", "tfrecords", "record", "records", "tfrec")


def find(pattern: str) -> tuple[dict[str, list[str]], list[str]]:
    """Finds files.

    Args:
        pattern: pattern of paths, where *, ? and [ have the usual meaning, and ** names folders at
            any depth.

    Returns:
        Name of a split -> paths of its files in order; and notes for the user.

    Raises:
        errors.UserError: if there are none, or if files of a numbered sequence are missing.
    """
    found = _expand(pattern)
    if not found:
        problem = "names no files; correct the pattern."
        if pattern and tf.io.gfile.isdir(pattern):
            problem = f"names a folder; name the files in it, as in {PREFIX}{pattern}/*."
        raise _error(pattern, problem)
    notes = list(_check_complete(pattern, found))
    splits = collections.defaultdict(list)
    for path, split in zip(found, _splits(found)):
        splits[split].append(path)
    return dict(sorted(splits.items())), notes


def short_names(found: Sequence[str]) -> dict[str, str]:
    """Returns a name for messages of each path, which is unique among them."""
    names = {path: os.path.basename(path) for path in found}
    if len(set(names.values())) == len(names):
        return names
    parts = {path: path.split("/") for path in found}
    depth = 0
    while len({pieces[depth] for pieces in parts.values()}) == 1:
        depth += 1
    return {path: "/".join(pieces[depth:]) for path, pieces in parts.items()}


def _expand(pattern: str) -> list[str]:
    if paths.scheme(pattern) is not None:
        problem = storage.why_unreachable(pattern)
        if problem is not None:
            raise _error(pattern, problem)
        return sorted(path for path in tf.io.gfile.glob(pattern) if not tf.io.gfile.isdir(path))
    if os.path.isfile(pattern):  # The name of a file may have a bracket.
        return [pattern]
    return sorted(filter(os.path.isfile, glob.glob(pattern, recursive=True)))


def _splits(found: Sequence[str]) -> Iterator[str]:
    """Yields the split of each path."""
    folders = {os.path.dirname(path) for path in found}
    for path in found:
        folder, name = os.path.split(path)
        match = _SHARD.fullmatch(name)
        words = re.split(r"[-_.]", (match["stem"] if match else name).lower())
        words = [word for word in words if word not in _EXTENSIONS] or [""]
        names = [words[-1], words[0]]
        if len(folders) > 1:
            names.append(os.path.basename(folder).lower())
        yield next((name for name in names if split_names.is_split(name)), "train")


def _check_complete(pattern: str, found: Sequence[str]) -> Iterator[str]:
    """Yields notes on numbered sequences of which the pattern names only some files.

    Raises:
        errors.UserError: if the others do not exist.
    """
    sequences = collections.defaultdict(set)
    for path in found:
        match = _SHARD.fullmatch(os.path.basename(path))
        if match and match["count"]:
            start = path[: len(path) - len(match[0]) + match.start("index")]
            key = (start, len(match["index"]), match["count"], match["end"])
            sequences[key].add(int(match["index"]))
    for (start, digits, count, end), present in sequences.items():
        others = [
            f"{start}{index:0{digits}}-of-{count}{end}"
            for index in range(int(count))
            if index not in present
        ]
        missing = [path for path in others if not tf.io.gfile.exists(path)]
        if missing:
            names = text.shortened([os.path.basename(path) for path in missing])
            raise _error(
                pattern,
                f"names files of a sequence of {int(count):,}, of which {len(missing):,} do not "
                f"exist ({names}); copy them, or rename the others so that their names do not end "
                f"in -of-{count}.",
            )
        if others:
            yield (
                f"The pattern names {len(present):,} of the {int(count):,} files "
                f"{os.path.basename(start)}*-of-{count}{end}; the others are not used."
            )


def _error(pattern: str, problem: str) -> errors.ArgumentError:
    return errors.ArgumentError("dataset", f"{PREFIX}{pattern}", problem)
