"""Sorts the images of a folder into splits and classes by a file of labels.

The column file has paths relative to the folder. Without a column split, a tenth of each class is
held out as the split `validation`, and images without a label are the split `unlabeled`. Images
that are not listed are left out.

Of images that may have several labels, a tenth is held out stratified by the rarest class of each.
One that shows no class is an example of none, and stays in its split.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Sequence
import posixpath

import tensorflow as tf

from simclr_tf import errors, text
from simclr_tf.data import groups, holdout, label_file, layout, scan, several_layout

_UNLABELLED = "unlabeled"
# What all rows of an image must agree in.
_DECIDING = ("label", "split", "group")


def of_listing(
    root: str,
    listing: scan.Listing,
    path: str,
    listed: label_file.Labels,
    *,
    seed: int,
    group: str | None = None,
) -> tuple[layout.Layout, dict[str, str] | None]:
    """Sorts the images of a folder by the rows of a file of labels.

    Args:
        root: the folder.
        listing: what it holds, each folder once.
        path: path of the file, for messages.
        listed: its content.
        seed: seed of the held-out split, where one has to be made.
        group: see `groups.of_names`; None if images are independent. It has no effect if the rows
            have groups.

    Returns:
        The layout, and path -> its group; None if images are independent.

    Raises:
        errors.UserError: if the file does not fit the folder, or contradicts itself.
    """
    layout.check_images(root, listing)
    rows = listed.rows
    row_of = _by_image(path, rows, _found(root, listing, path, rows))
    several = None
    if listed.class_names is None:
        labels = {image: row.label for image, row in row_of.items() if row.label}
    else:
        several = layout.Several(
            listed.class_names, {image: row.values or () for image, row in row_of.items()}
        )
        labels = several_layout.strata(several)
    of_image = _groups(row_of, group)
    if any(row.split is not None for row in rows):
        splits = _splits_of_rows(path, row_of, labels)
        splits, notes = holdout.ensure_evaluation(splits, labels, seed=seed, groups=of_image)
    else:
        splits, notes = _splits_of_labels(list(row_of), labels, seed, of_image)
    notes += listed.notes
    left_out = sorted(set(listing.images) - row_of.keys())
    if left_out:
        adds = "an unlabelled image" if several is None else "an image that shows no class"
        notes.append(
            f"Left out {text.count(len(left_out), 'image')} that {path} does not list "
            f"({text.shortened(left_out)}). A row with an empty label adds {adds}."
        )
    others = [other for other in listing.others if posixpath.join(root, other) != path]
    listing = listing._replace(others=others)
    if several is not None:
        notes += several_layout.notes(splits, several)
        found = layout.finished(splits, {}, notes, listing)
        return found._replace(several=several), of_image
    notes += layout.notes_on_missing_classes(splits, labels)
    return layout.finished(splits, labels, notes, listing), of_image


def _groups(row_of: dict[str, label_file.Row], group: str | None) -> dict[str, str] | None:
    """Returns image -> its group, which the rows have or an expression finds in the name."""
    if any(row.group is not None for row in row_of.values()):
        return {image: row.group or "" for image, row in row_of.items()}
    return groups.of_names(list(row_of), group)


def _found(
    root: str, listing: scan.Listing, path: str, rows: Sequence[label_file.Row]
) -> list[str]:
    """Returns the image of each row.

    Raises:
        errors.UserError: if there are no rows, or images are missing.
    """
    if not rows:
        raise errors.UserError(
            f"The file of labels {path!r} lists no images, only the names of columns; add rows."
        )
    find = _finder(root, listing)
    images = [find(row.file) for row in rows]
    missing = [row.file for row, image in zip(rows, images, strict=True) if image is None]
    if missing:
        raise errors.UserError(
            f"The file of labels {path!r} lists {len(missing):,} files of {len(rows):,} that are "
            f"not among the images in {root!r} ({text.shortened(missing)})"
            f"{_similar(missing[0], listing.images)}; correct the column file, whose paths are "
            "relative to that folder, remove these rows, or set --data_dir to their folder."
        )
    return [image for image in images if image is not None]


def _finder(root: str, listing: scan.Listing) -> Callable[[str], str | None]:
    """Returns a function: path in the file of labels -> path of the image as listed, or None."""
    images = set(listing.images)
    in_usual_form: dict[str, str] = {}

    def find(file: str) -> str | None:
        if file in images:
            return file
        name = file.strip()
        if posixpath.isabs(name) or "://" in name:
            name = name.removeprefix(root.rstrip("/") + "/")
        # Files of Windows have backslashes.
        names = [posixpath.normpath(name), posixpath.normpath(name.replace("\\", "/"))]
        for name in names:
            if name in images or _is_in_link(root, name, listing.repeated):
                return name
        if not in_usual_form:
            in_usual_form.update((layout.usual_form(image), image) for image in images)
        return next(
            (
                in_usual_form[name]
                for name in map(layout.usual_form, names)
                if name in in_usual_form
            ),
            None,
        )

    return find


def _is_in_link(root: str, name: str, links: Iterable[str]) -> bool:
    """Returns whether an image exists in a folder that is listed under another name only."""
    return any(name.startswith(f"{link}/") for link in links) and tf.io.gfile.exists(
        posixpath.join(root, name)
    )


def _similar(file: str, images: Sequence[str]) -> str:
    """Returns " (did you mean ...?)" with an image of the same name, or ""."""
    name = posixpath.basename(file.strip().replace("\\", "/"))
    for image in images:
        base = posixpath.basename(image)
        if name in (base, posixpath.splitext(base)[0]):
            return f" (did you mean {image}?)"
    return ""


def _by_image(
    path: str, rows: Sequence[label_file.Row], images: Sequence[str]
) -> dict[str, label_file.Row]:
    """Returns image -> its row.

    Raises:
        errors.UserError: if an image has several rows that differ.
    """
    row_of: dict[str, label_file.Row] = {}
    for row, image in zip(rows, images, strict=True):
        first = row_of.setdefault(image, row)
        if first[1:-1] == row[1:-1]:
            continue
        what = next(name for name in _DECIDING if getattr(first, name) != getattr(row, name))
        count = len(_contradicted(rows, images))
        raise errors.UserError(
            f"The file of labels {path!r} gives {image} the {what} {getattr(first, what)!r} in "
            f"line {first.line:,} and {getattr(row, what)!r} in line {row.line:,} ({count:,} such "
            f"file{'s' if count > 1 else ''}); remove one of these rows."
        )
    return row_of


def _contradicted(rows: Sequence[label_file.Row], images: Sequence[str]) -> list[str]:
    """Returns the images that have several rows that differ."""
    found = collections.defaultdict(set)
    for row, image in zip(rows, images, strict=True):
        found[image].add(row[1:-1])
    return [image for image, values in found.items() if len(values) > 1]


def _splits_of_rows(
    path: str, row_of: dict[str, label_file.Row], labels: dict[str, str]
) -> dict[str, list[str]]:
    """Sorts images by the column split.

    Raises:
        errors.UserError: if images have no split, or a split has both labelled and unlabelled ones.
    """
    splits = collections.defaultdict(list)
    for image, row in row_of.items():
        splits[row.split or ""].append(image)
    if "" in splits:
        lost = splits[""]
        raise errors.UserError(
            f"The file of labels {path!r} has {len(lost):,} images without a split "
            f"({text.shortened(lost)}); give each one, or remove the column split."
        )
    for split, images in splits.items():
        unlabelled = [image for image in images if image not in labels]
        if 0 < len(unlabelled) < len(images):
            raise errors.UserError(
                f"The file of labels {path!r} has {len(unlabelled):,} of {len(images):,} images of "
                f"the split {split!r} without a label ({text.shortened(unlabelled)}); give them "
                f"one, or another split, such as {_UNLABELLED}."
            )
    return dict(sorted(splits.items()))


def _splits_of_labels(
    images: Sequence[str], labels: dict[str, str], seed: int, of_image: dict[str, str] | None
) -> tuple[dict[str, list[str]], list[str]]:
    """Makes splits where there is no column split."""
    labelled = [image for image in images if image in labels]
    unlabelled = [image for image in images if image not in labels]
    if not labelled:
        return {"train": unlabelled}, []
    splits, notes = {"train": labelled}, list[str]()
    if len(set(labels.values())) > 1:
        splits, note = holdout.hold_out(labelled, labels, seed=seed, groups=of_image)
        notes.append(note)
    if unlabelled:
        splits[_UNLABELLED] = unlabelled
        notes.append(f"The {len(unlabelled):,} images without a label are {_UNLABELLED!r}.")
    return splits, notes
