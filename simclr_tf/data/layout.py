"""Sorts the images of a folder into splits and classes, by the folders that hold them.

What the folder may hold, and what it becomes:

  split/class/*.jpg   the splits as they are, labelled
  class/*.jpg         labelled; a tenth of each class is held out as the split `validation`
  split/*.jpg         the splits as they are, unlabelled (train, test, validation, unlabeled, ...)
  *.jpg               one unlabelled split, `train`

Names of folders that differ only in their Unicode form, as those of an archive from a Mac do, are
one name.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator
import hashlib
from typing import NamedTuple, NoReturn
import unicodedata

from simclr_tf import errors, text
from simclr_tf.data import kinds, scan

HELD_OUT = "validation"
HELD_OUT_FRACTION = 0.1
_TRAIN_NAMES = ("train", "training", "unlabeled", "unlabelled", "unsupervised", "extra")
_EVAL_NAMES = ("test", "testing", "val", "valid", "validation", "eval", "evaluation", "dev")
SPLIT_NAMES = frozenset((*_TRAIN_NAMES, *_EVAL_NAMES))
LAYOUTS = "split/class/*.jpg, class/*.jpg, split/*.jpg or just images"
# The most empty folders that a note names.
_MOST_NAMED = 12


class Layout(NamedTuple):
    """Which image is in which split and class.

    Attributes:
        splits: name of a split -> paths of its images, relative to the folder, with slashes.
        labels: path -> name of its class; unlabelled images are missing.
        notes: sentences for the user: what was held out, which classes are missing, what is not
            used.
    """

    splits: dict[str, list[str]]
    labels: dict[str, str]
    notes: tuple[str, ...]


def of_listing(root: str, listing: scan.Listing, *, seed: int) -> Layout:
    """Finds the layout of a folder.

    Args:
        root: the folder, for messages.
        listing: what it holds.
        seed: seed of the held-out split, where one has to be made.

    Raises:
        errors.UserError: if it holds no images, or has another layout.
    """
    images = listing.images
    by_depth = collections.defaultdict(list)
    for path in images:
        by_depth[path.count("/")].append(path)
    if not images:
        raise errors.UserError(
            f"The folder {root!r} holds no images ({kinds.SUPPORTED}), {_contents(listing)}; "
            f"choose a folder that holds {LAYOUTS}."
        )
    if max(by_depth) > 2 or (0 in by_depth and len(by_depth) > 1):
        _refuse(root, "nests images too deep or at several depths", by_depth)
    if 0 in by_depth:
        splits, labels, notes = {"train": images}, dict[str, str](), list[str]()
    elif 2 in by_depth:
        splits, labels, notes = _splits_of_classes(root, by_depth)
    else:
        splits, labels, notes = _classes_or_splits(root, images, seed)
    if len(set(labels.values())) == 1:
        notes.append(f"All labels are {next(iter(labels.values()))!r}, so they are ignored.")
        labels = {}
    return Layout(splits, labels, (*notes, *_notes_on_the_rest(listing)))


def usual_form(name: str) -> str:
    """Returns the name of a class in the Unicode form in which names are compared."""
    return unicodedata.normalize("NFC", name)


def path_hash(path: str) -> bytes:
    """Returns the hash by which paths are ordered and drawn."""
    return hashlib.blake2b(path.encode(), digest_size=16).digest()


def missing_classes(
    split: str, present: Iterable[str], classes: Iterable[str], *, what: str = "images"
) -> str | None:
    """Returns a sentence that names the classes of which a split has no images, or None.

    Args:
        split: the split.
        present: the classes of its images.
        classes: all classes.
        what: the images that are meant, such as "readable images".
    """
    classes = set(classes)
    missing = sorted(classes - set(present))
    if not missing:
        return None
    return (
        f"The split {split!r} has no {what} of {len(missing):,} of {len(classes):,} classes: "
        f"{text.shortened(missing, most=_MOST_NAMED)}."
    )


def _contents(listing: scan.Listing) -> str:
    """Returns what a folder without images holds, as a clause of a sentence."""
    if listing.others:
        return f"it holds {_count(listing.others)}"
    if listing.empty:
        return f"its folders are empty ({text.shortened(listing.empty)})"
    return "it is empty"


def _notes_on_the_rest(listing: scan.Listing) -> Iterator[str]:
    """Yields sentences on everything that is not used."""
    if listing.empty:
        plural = "s" if len(listing.empty) > 1 else ""
        yield (
            f"Skipped {len(listing.empty):,} folder{plural} without images: "
            f"{text.shortened(listing.empty, most=_MOST_NAMED)}."
        )
    if listing.loops:
        yield f"Skipped links to a folder that contains them: {text.shortened(listing.loops)}."
    if listing.others:
        yield f"Skipped what is not an image: {_count(listing.others)}."


def _count(files: list[str]) -> str:
    """Counts files and names some, as in "12 files (a.txt, b.txt, c.txt and 9 more)"."""
    plural = "s" if len(files) > 1 else ""
    return f"{len(files):,} file{plural} ({text.shortened(sorted(files))})"


def _refuse(root: str, problem: str, by_depth: dict[int, list[str]]) -> NoReturn:
    found = "; ".join(f"{len(paths):,} like {min(paths)}" for _, paths in sorted(by_depth.items()))
    raise errors.UserError(
        f"The folder {root!r} {problem} ({found}); rearrange it, or choose another folder, so "
        f"that it holds {LAYOUTS}."
    )


def _splits_of_classes(
    root: str, by_depth: dict[int, list[str]]
) -> tuple[dict[str, list[str]], dict[str, str], list[str]]:
    """Reads split/class/*.jpg, which may have unlabelled splits, split/*.jpg, beside them."""
    labels = {path: _folder_name(path, 1) for path in by_depth[2]}
    splits = _by_top_folder(by_depth[2])
    unlabelled = _by_top_folder(by_depth.get(1, []))
    for split, paths in unlabelled.items():
        if split in splits or split.lower() not in SPLIT_NAMES:
            _refuse(root, f"mixes images and folders ({split}/ holds images itself)", by_depth)
        splits[split] = paths
    notes = [f"The split {s!r} has no class folders, so it is unlabelled." for s in unlabelled]
    labelled = {split: splits[split] for split in splits if split not in unlabelled}
    return splits, labels, [*notes, *_notes_on_missing_classes(labelled, labels)]


def _notes_on_missing_classes(splits: dict[str, list[str]], labels: dict[str, str]) -> list[str]:
    classes = set(labels.values())
    notes = (
        missing_classes(split, {labels[path] for path in paths}, classes)
        for split, paths in sorted(splits.items())
    )
    return [note for note in notes if note is not None]


def _classes_or_splits(
    root: str, images: list[str], seed: int
) -> tuple[dict[str, list[str]], dict[str, str], list[str]]:
    """Reads folder/*.jpg: unlabelled splits if all folders are named like splits, else classes."""
    folders = _by_top_folder(images)
    named_as_splits = sorted(name for name in folders if name.lower() in SPLIT_NAMES)
    if len(named_as_splits) == len(folders):
        return folders, {}, []
    if len(named_as_splits) > 1:  # A single one may well be a class, such as trains.
        others = sorted(set(folders) - set(named_as_splits))
        raise errors.UserError(
            f"The folder {root!r} holds both splits ({', '.join(named_as_splits)}) and what may be "
            f"classes ({text.shortened(others)}); rearrange it so that it holds {LAYOUTS}."
        )
    labels = {path: _folder_name(path, 0) for path in images}
    if len(folders) == 1:
        return {"train": images}, labels, []
    splits: dict[str, list[str]] = {"train": [], HELD_OUT: []}
    for paths in folders.values():
        paths = sorted(paths, key=lambda path: path_hash(f"{seed}/{path}"))
        count = max(round(HELD_OUT_FRACTION * len(paths)), 1) if len(paths) > 1 else 0
        splits[HELD_OUT] += paths[:count]
        splits["train"] += paths[count:]
    note = (
        f"Held out {len(splits[HELD_OUT])} of {len(images)} images, a tenth of each class drawn "
        f"with seed {seed}, as the split {HELD_OUT!r}."
    )
    splits = {split: paths for split, paths in splits.items() if paths}
    return splits, labels, [note, *_notes_on_missing_classes(splits, labels)]


def _by_top_folder(paths: list[str]) -> dict[str, list[str]]:
    folders = collections.defaultdict(list)
    for path in paths:
        folders[_folder_name(path, 0)].append(path)
    return dict(sorted(folders.items()))


def _folder_name(path: str, level: int) -> str:
    """Returns the name of one of the folders of a path, in the usual Unicode form."""
    return usual_form(path.split("/")[level])
