"""Lists what a folder of images holds, without opening files that have an extension."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator
import os
import posixpath
import re
from typing import NamedTuple

import tensorflow as tf

from simclr_tf import errors, text
from simclr_tf.data import kinds

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp", ".png", ".apng", ".gif", ".bmp", ".dib"),
    *(".webp", ".tif", ".tiff", ".avif", ".heic", ".heif", ".hif"),
    *(".jp2", ".j2k", ".jpf", ".jpx"),
    *(".dcm", ".dicom"),
)
# Arrays are images where there are no pictures; beside them, they may be anything.
ARRAYS = (".npy", ".npz")
# Names without an extension of DICOM files, and that of the list of all such files on a disk.
_UID, _LIST = re.compile(r"[0-9.]+"), "DICOMDIR"
# Files without an extension of which the first bytes are read, in each folder.
_LOOKED_AT = 32
# The most empty folders that a note names.
_MOST_NAMED = 12
# Folders below these are in no layout, so each is visited once, whatever links lead to it.
_MAX_DEPTH = 2


class Listing(NamedTuple):
    """What a folder holds, as paths relative to it, with slashes; what is hidden is ignored.

    Attributes:
        images: paths that are named like images and are not folders, and files without an
            extension that are images; files of arrays if there are no others.
        others: all other files.
        empty: folders that hold no images, at any depth; not the folders in them.
        loops: links to a folder that contains them, which were not followed.
        repeated: links to a folder that was visited already, and folders in such links.
    """

    images: list[str]
    others: list[str]
    empty: list[str]
    loops: list[str]
    repeated: list[str]


def scan(root: str, *, once: bool = False) -> Listing:
    """Lists a folder.

    Args:
        root: an existing folder; a path that TensorFlow can read, gs:// included.
        once: visits each folder once, as itself if it is in `root`, and not through links to it.
            Otherwise that holds only for folders too deep for splits and classes.

    Raises:
        errors.UserError: if a folder in it cannot be read, or names are not UTF-8.
    """
    images, arrays, others, folders, loops, repeated = (list[str]() for _ in range(6))
    visited: set[str] = set()
    # The path of a folder, and the real paths of those above it and of itself.
    pending: list[tuple[str, tuple[str, ...]]] = [("", (os.path.realpath(root),))]
    links: collections.deque[tuple[str, tuple[str, ...]]] = collections.deque()
    while pending or links:
        if not pending:  # Links come last, so that what they lead to is visited as itself.
            path, above = links.popleft()
            if above[-1] in visited:
                repeated.append(path)
                continue
            visited.add(above[-1])
            folders.append(path)
            pending.append((path, above))
        folder, above = pending.pop()
        unnamed: list[str] = []
        for name, is_folder in _entries(posixpath.join(root, folder)):
            path = posixpath.join(folder, name)
            if not is_folder:
                if "." not in name or _UID.fullmatch(name):
                    unnamed.append(path)
                elif name.lower().endswith(ARRAYS):
                    arrays.append(path)
                else:
                    (images if _is_named_like_an_image(name) else others).append(path)
                continue
            real = os.path.realpath(posixpath.join(root, path))
            if any(_contains(real, other) for other in above):
                loops.append(path)
            elif once and real != posixpath.join(above[-1], name):
                links.append((path, (*above, real)))
            elif real not in visited:
                folders.append(path)
                pending.append((path, (*above, real)))
                if once or path.count("/") >= _MAX_DEPTH:
                    visited.add(real)
            elif once:
                repeated.append(path)
        for path, is_image in zip(unnamed, _are_images(root, unnamed)):
            (images if is_image else others).append(path)
    if images:
        others += arrays
    else:
        images = arrays
    _check_names(root, [*images, *folders])
    empty = _outermost_empty(folders, images)
    return Listing(images, _printable(others), empty, _printable(loops), _printable(repeated))


def _entries(folder: str) -> list[tuple[str, bool]]:
    """Returns the names in a folder, in order, and whether each is a folder."""
    try:
        if "://" in folder:
            found = list(_remote_entries(folder))
        else:
            with os.scandir(folder) as entries:
                found = [(entry.name, _is_folder(entry)) for entry in entries]
    except UnicodeError as error:
        raise errors.UserError(
            f"The folder {folder!r} holds names that are not UTF-8 ({text.reason(error)}); rename "
            "them."
        ) from error
    except (tf.errors.OpError, OSError) as error:
        raise errors.UserError(
            f"The folder {folder!r} cannot be read ({text.reason(error)}); fix its permissions or "
            "move it elsewhere."
        ) from error
    return sorted(entry for entry in found if not entry[0].startswith("."))


def _remote_entries(folder: str) -> Iterator[tuple[str, bool]]:
    for listed in tf.io.gfile.listdir(folder):
        name = listed.rstrip("/")
        is_folder = listed.endswith("/") or (
            not _is_named_like_an_image(name)  # Saves one access per image.
            and tf.io.gfile.isdir(posixpath.join(folder, name))
        )
        yield name, is_folder


def _is_folder(entry: os.DirEntry[str]) -> bool:
    if entry.is_dir(follow_symlinks=False):
        return True
    # Links named like images are not followed, which would take one access to the disk for each.
    return not _is_named_like_an_image(entry.name) and os.path.isdir(entry.path)


def _is_named_like_an_image(name: str) -> bool:
    return name.lower().endswith((*EXTENSIONS, *ARRAYS))


def _are_images(root: str, paths: list[str]) -> list[bool]:
    """Returns which of the files of a folder that have no extension are images, by their bytes.

    Of many files a sample is looked at: the others are taken for images if most of those are.
    """
    sample = paths[:: -(-len(paths) // _LOOKED_AT) or 1]
    looked_at = {path: _is_image(posixpath.join(root, path)) for path in sample}
    most = 2 * sum(looked_at.values()) > len(looked_at)
    return [looked_at.get(path, most) for path in paths]


def _is_image(path: str) -> bool:
    """Returns whether a file begins like an image; opening another thing, as a pipe, may block."""
    if posixpath.basename(path) == _LIST or ("://" not in path and not os.path.isfile(path)):
        return False
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            return kinds.kind_of(file.read(kinds.HEAD)) is not None
    except tf.errors.OpError:
        return False


def _contains(folder: str, other: str) -> bool:
    """Returns whether a real folder is another one, or contains it."""
    return f"{other}/".startswith(f"{folder.rstrip('/')}/")


def _outermost_empty(folders: Iterable[str], images: Iterable[str]) -> list[str]:
    """Returns the folders that hold no images, at any depth, except those in one of them."""
    used = {""}
    for path in images:
        folder = posixpath.dirname(path)
        while folder not in used:
            used.add(folder)
            folder = posixpath.dirname(folder)
    return [
        folder
        for folder in sorted(folders)
        if folder not in used and posixpath.dirname(folder) in used
    ]


def _check_names(root: str, paths: list[str]) -> None:
    """Refuses names that TensorFlow cannot store, because they are not UTF-8."""
    wrong = [path for path in paths if not posixpath.basename(path).isascii()]
    wrong = [path for path in wrong if _printable([path]) != [path]]
    if wrong:
        wrong.sort()
        plural = "s that are" if len(wrong) > 1 else " that is"
        raise errors.UserError(
            f"The folder {root!r} holds {len(wrong):,} name{plural} not UTF-8 "
            f"({text.shortened(_printable(wrong))}); rename what is named so."
        )


def _printable(paths: list[str]) -> list[str]:
    r"""Returns paths in which bytes that are not UTF-8 are written as in caf\xe9.jpg."""
    return [
        path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        for path in paths
    ]


def contents(listing: Listing) -> str:
    """Returns what a folder without images holds, as a clause of a sentence."""
    if listing.others:
        return f"it holds {_count(listing.others)}"
    if listing.empty:
        return f"its folders are empty ({text.shortened(listing.empty)})"
    return "it is empty"


def notes(listing: Listing) -> Iterator[str]:
    """Yields sentences on everything that is not used."""
    if listing.empty:
        plural = "s" if len(listing.empty) > 1 else ""
        yield (
            f"Skipped {len(listing.empty):,} folder{plural} without images: "
            f"{text.shortened(listing.empty, most=_MOST_NAMED)}."
        )
    if listing.loops:
        yield f"Skipped links to a folder that contains them: {text.shortened(listing.loops)}."
    if listing.repeated:
        some = text.shortened(listing.repeated)
        yield f"Skipped folders that are read under another name: {some}."
    if listing.others:
        yield f"Skipped what is not an image: {_count(listing.others)}."


def _count(files: list[str]) -> str:
    """Counts files and names some, as in "12 files (a.txt, b.txt, c.txt and 9 more)"."""
    plural = "s" if len(files) > 1 else ""
    return f"{len(files):,} file{plural} ({text.shortened(sorted(files))})"
