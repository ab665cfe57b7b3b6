"""Sorts the images of a folder into splits and classes, by the folders that hold them.

What the folder may hold, and what it becomes:

  split/class/*.jpg   the splits as they are, labelled; if none but the training split has labels, a
                      tenth of each of its classes is held out as the split `validation`
  class/*.jpg         labelled; a tenth of each class is held out as the split `validation`
  split/*.jpg         the splits as they are, unlabelled (train, test, validation, unlabeled, ...)
  *.jpg               one unlabelled split, `train`

`unlabelled` reads images at any depth without labels, `listed_layout` with the labels of a file.

Splits may be named in any case, see `split_names`. Names of folders that differ only in their
Unicode form, as those of an archive from a Mac do, are one name.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator, Mapping
import itertools
import re
from typing import NamedTuple, NoReturn
import unicodedata

from simclr_tf import errors, text
from simclr_tf.data import holdout, kinds, scan, split_names

LAYOUTS = "split/class/*.jpg, class/*.jpg, split/*.jpg or just images"
# The most empty folders that a note names.
_MOST_NAMED = 12
# Names of folders by year, month or day, and of all that are numbers.
_DATE = re.compile(r"(19|20)\d\d([-_. ]?\d\d){0,2}")
_NUMERIC = re.compile(r"[\d\-_. ]*\d[\d\-_. ]*")


class Several(NamedTuple):
    """Labels of images that may have several.

    Attributes:
        class_names: names of the c classes.
        values: path of an image -> its labels (c,), see `indicators`.
    """

    class_names: tuple[str, ...]
    values: Mapping[str, tuple[int, ...]]


class Layout(NamedTuple):
    """Which image is in which split and class.

    Attributes:
        splits: name of a split -> paths of its images, relative to the folder, with slashes.
        labels: path -> name of its class; unlabelled images are missing.
        notes: sentences for the user: what was held out, which classes are missing, what is not
            used.
        several: the labels of images that may have several, which then have no class in `labels`;
            None if they have one.
    """

    splits: dict[str, list[str]]
    labels: dict[str, str]
    notes: tuple[str, ...]
    several: Several | None = None


def of_listing(
    root: str, listing: scan.Listing, *, seed: int, groups: Mapping[str, str] | None = None
) -> Layout:
    """Finds the layout of a folder.

    Args:
        root: the folder, for messages.
        listing: what it holds.
        seed: seed of the held-out split, where one has to be made.
        groups: path -> its group, which is held out as a whole; None if images are independent.

    Raises:
        errors.UserError: if it holds no images, or has another layout.
    """
    check_images(root, listing)
    images = listing.images
    by_depth = collections.defaultdict(list)
    for path in images:
        by_depth[path.count("/")].append(path)
    if max(by_depth) > 2 or (0 in by_depth and len(by_depth) > 1):
        _refuse(root, "nests images too deep or at several depths", by_depth)
    if 0 in by_depth:
        splits, labels, notes = {"train": images}, dict[str, str](), list[str]()
    elif 2 in by_depth:
        splits, labels, notes = _splits_of_classes(root, by_depth, seed, groups)
    else:
        splits, labels, notes = _classes_or_splits(root, images, seed, groups)
    return finished(splits, labels, notes, listing)


def unlabelled(root: str, listing: scan.Listing) -> Layout:
    """Sorts images at any depth, without labels: by split if all are in folders that are splits.

    Args:
        root: the folder, for messages.
        listing: what it holds.

    Raises:
        errors.UserError: if it holds no images, or several folders that are the same split.
    """
    check_images(root, listing)
    folders = _by_top_folder(listing.images)
    named = sorted(filter(split_names.is_split, folders))
    if len(named) == len(folders):
        of_folder, notes = split_names.of_folders(root, folders)
        splits = {of_folder[folder]: paths for folder, paths in folders.items()}
        return finished(splits, {}, notes, listing)
    notes = []
    if named:
        others = sorted(folder or "." for folder in set(folders) - set(named))
        notes.append(
            f"All images are one split, 'train', because not only {', '.join(named)} but also "
            f"{text.shortened(others)} has images."
        )
    return finished({"train": listing.images}, {}, notes, listing)


def finished(
    splits: dict[str, list[str]],
    labels: dict[str, str],
    notes: Iterable[str],
    listing: scan.Listing,
) -> Layout:
    """Returns a layout with notes on what is not used; labels that are all the same are ignored."""
    notes = list(notes)
    if len(set(labels.values())) == 1:
        notes.append(f"All labels are {next(iter(labels.values()))!r}, so they are ignored.")
        labels = {}
    return Layout(splits, labels, (*notes, *scan.notes(listing)))


def check_images(root: str, listing: scan.Listing) -> None:
    """Refuses a folder without images."""
    if not listing.images:
        raise errors.UserError(
            f"The folder {root!r} holds no images ({kinds.SUPPORTED}), "
            f"{scan.contents(listing)}; choose a folder that holds {LAYOUTS}."
        )


def usual_form(name: str) -> str:
    """Returns the name of a class in the Unicode form in which names are compared."""
    return unicodedata.normalize("NFC", name)


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


def _refuse(root: str, problem: str, by_depth: dict[int, list[str]]) -> NoReturn:
    found = "; ".join(f"{len(paths):,} like {min(paths)}" for _, paths in sorted(by_depth.items()))
    remedies = _remedies(root, itertools.chain(*by_depth.values()))
    raise errors.UserError(f"The folder {root!r} {problem} ({found}); {remedies}.")


def _remedies(root: str, images: Iterable[str]) -> str:
    """Returns what to do about a folder with another layout, as the end of a sentence."""
    tops = {path.split("/")[0] for path in images}
    other = f"{root}/{tops.pop()}" if len(tops) == 1 else "another folder"
    return (
        f"rearrange it, or choose {other}, so that it holds {LAYOUTS}; or read all of its images "
        "without labels (--labels=none), or with those of a file (--labels=FILE.csv)"
    )


def _splits_of_classes(
    root: str, by_depth: dict[int, list[str]], seed: int, groups: Mapping[str, str] | None
) -> tuple[dict[str, list[str]], dict[str, str], list[str]]:
    """Reads split/class/*.jpg, which may have unlabelled splits, split/*.jpg, beside them."""
    labels = {path: _folder_name(path, 1) for path in by_depth[2]}
    labelled, unlabelled = (_by_top_folder(by_depth.get(depth, [])) for depth in (2, 1))
    for folder in unlabelled:
        if folder in labelled or not split_names.is_split(folder):
            _refuse(root, f"mixes images and folders ({folder}/ holds images itself)", by_depth)
    if all(map(_NUMERIC.fullmatch, {*labelled, *unlabelled, *labels.values()})):
        _refuse(root, "has folders that are numbers, as of years and months", by_depth)
    of_folder, notes = split_names.of_folders(root, [*labelled, *unlabelled])
    splits = {of_folder[f]: paths for f, paths in {**labelled, **unlabelled}.items()}
    if not any(map(split_names.is_split, splits)):
        notes.append(_note_on_unusual_splits(root, list(labelled)))
    notes += [
        f"The split {of_folder[folder]!r} has no class folders, so it is unlabelled."
        for folder in unlabelled
    ]
    notes += [
        f"The class {name!r} is named like a split; if its images have no labels, move them one "
        "folder up."
        for name in sorted(set(filter(split_names.is_split, labels.values())))
    ]
    splits, more = holdout.ensure_evaluation(splits, labels, seed=seed, groups=groups)
    return splits, labels, [*notes, *more, *notes_on_missing_classes(splits, labels)]


def _note_on_unusual_splits(root: str, folders: list[str]) -> str:
    """Returns a sentence on a folder of which no folder is named as a split."""
    if len(folders) == 1:
        return (
            f"The folder {folders[0]} is taken as a split, and the folders in it as classes. If it "
            f"is not a split, use --data_dir={root}/{folders[0]}."
        )
    return (
        f"The folders {text.shortened(sorted(folders))} are taken as splits, and the folders in "
        "them as classes. If they are not splits, use --labels=none, which reads all images "
        "without labels."
    )


def notes_on_missing_classes(splits: dict[str, list[str]], labels: dict[str, str]) -> list[str]:
    """Returns a sentence for every labelled split that has no images of some classes."""
    classes = set(labels.values())
    notes = (
        missing_classes(split, {labels[path] for path in paths}, classes)
        for split, paths in sorted(splits.items())
        if paths[0] in labels
    )
    return [note for note in notes if note is not None]


def _classes_or_splits(
    root: str, images: list[str], seed: int, groups: Mapping[str, str] | None
) -> tuple[dict[str, list[str]], dict[str, str], list[str]]:
    """Reads folder/*.jpg: unlabelled splits if all folders are named like splits, else classes."""
    folders = _by_top_folder(images)
    named_as_splits = sorted(filter(split_names.is_split, folders))
    if len(named_as_splits) == len(folders):
        of_folder, notes = split_names.of_folders(root, folders)
        return {of_folder[folder]: paths for folder, paths in folders.items()}, {}, notes
    if len(named_as_splits) > 1:  # A single one may well be a class, such as trains.
        others = sorted(set(folders) - set(named_as_splits))
        raise errors.UserError(
            f"The folder {root!r} holds both splits ({', '.join(named_as_splits)}) and what may be "
            f"classes ({text.shortened(others)}); {_remedies(root, images)}."
        )
    labels = {path: _folder_name(path, 0) for path in images}
    if len(folders) == 1:
        return {"train": images}, labels, []
    splits, note = holdout.hold_out(images, labels, seed=seed, groups=groups)
    notes = [note, *_notes_on_classes(folders), *notes_on_missing_classes(splits, labels)]
    return splits, labels, notes


def _notes_on_classes(folders: dict[str, list[str]]) -> Iterator[str]:
    """Yields sentences on folders that are taken as classes but may not be."""
    if all(map(_DATE.fullmatch, folders)):
        some = f"The folders {text.shortened(list(folders))}, which look like dates,"
    elif all(len(paths) == 1 for paths in folders.values()):
        some = "The folders, which have one image each,"
    else:
        return
    yield (
        f"{some} are taken as classes. If they are not, use --labels=none, which reads all images "
        "without labels."
    )


def _by_top_folder(paths: list[str]) -> dict[str, list[str]]:
    """Returns folder -> the paths in it; "" for images that are in none."""
    folders = collections.defaultdict(list)
    for path in paths:
        folders[_folder_name(path, 0) if "/" in path else ""].append(path)
    return dict(sorted(folders.items()))


def _folder_name(path: str, level: int) -> str:
    """Returns the name of one of the folders of a path, in the usual Unicode form."""
    return usual_form(path.split("/")[level])
