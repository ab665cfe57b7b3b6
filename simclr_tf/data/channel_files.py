"""Images of which each channel is a file of its own, by a pattern of their names."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
import io
import re

import numpy as np
from PIL import Image
import tensorflow as tf

from simclr_tf import errors, text
from simclr_tf.data import array_files, kinds, scan

ID, CHANNEL = "{id}", "{channel}"
_PICTURES = (kinds.PNG, kinds.JPEG)
# ID_CHANNEL.END, as in scene_B04.tif: a channel is a number, which may follow a name of channels or
# its abbreviation, or a word, as in cell_dapi.tif. Slices, frames and tiles are no channels.
_NAMED_CHANNEL = re.compile(
    r"(?P<id>.*[^/_.-])(?P<join>[_.-])"
    r"(?P<channel>(?:(?:band|b|channel|ch|c|w)?\d{1,3}[a-z]?|[a-z]{2,12}))(?P<end>\.[^./]+)",
    re.IGNORECASE,
)
_OF_PHOTOGRAPHS = (".jpg", ".jpeg", ".JPG", ".JPEG", ".png", ".PNG", ".webp", ".gif", ".bmp")
_MOST_CHANNELS = 64
_DTYPES = {"L": np.uint8, "I;16": np.uint16, "I;16B": np.uint16, "I": np.uint16}


class Grouped:
    """The files of a folder, sorted into images.

    Attributes:
        listing: what the folder holds, with images in place of their files: paths whose last part
            is what the pattern calls {id}.
        channels: names of the channels, in their order.
        files: image -> its files, in the order of the channels.
    """

    def __init__(
        self, root: str, listing: scan.Listing, pattern: str, order: Sequence[str] | None
    ) -> None:
        """Sorts the files.

        Args:
            root: the folder, for messages.
            listing: what it holds.
            pattern: the end of the paths, with {id} and {channel}, as in {id}_B{channel}.tif.
            order: the channels to use, in their order; None for all, numbers in ascending order.

        Raises:
            ArgumentError: if no file matches, or an image lacks a channel.
        """
        found: dict[str, dict[str, str]] = collections.defaultdict(dict)
        matches = expression(pattern).fullmatch
        others = []
        for path in listing.images:
            match = matches(path)
            if match is None:
                others.append(path)
            else:
                found[f"{match['folder'] or ''}{match['id']}"][match["channel"]] = path
        if not found:
            raise errors.ArgumentError(
                "channel_files",
                pattern,
                f"matches none of the {text.count(len(others), 'image file')} in {root!r} "
                f"({text.shortened(others) or 'none'}); write what they have in common.",
            )
        present = sorted({name for files in found.values() for name in files}, key=_natural)
        self.channels = tuple(order or present)
        _check_complete(pattern, found, self.channels)
        self.files: Mapping[str, tuple[str, ...]] = {
            image: tuple(files[name] for name in self.channels) for image, files in found.items()
        }
        self.listing = listing._replace(
            images=sorted(self.files), others=[*listing.others, *others]
        )


def note(paths: Iterable[str]) -> str | None:
    """Returns a note if the names of the files of a folder look like channels of images.

    Args:
        paths: the images of a folder, each of which is taken for an image of its own.

    Returns:
        A sentence if every file is named ID_CHANNEL.END, for the same channels of several images;
        None otherwise. Numbers are channels only in files of types that photographs rarely have.
    """
    channels: dict[str, set[str]] = collections.defaultdict(set)
    ends = set()
    for path in paths:
        match = _NAMED_CHANNEL.fullmatch(path)
        if match is None or (match["channel"].isdigit() and match["end"] in _OF_PHOTOGRAPHS):
            return None
        channels[match["id"]].add(match["channel"])
        ends.add(match["join"] + CHANNEL + match["end"])
    each = {frozenset(names) for names in channels.values()}
    if len(channels) < 2 or len(ends) != 1 or len(each) != 1:
        return None
    names = sorted(each.pop(), key=_natural)
    if not 2 <= len(names) <= _MOST_CHANNELS:
        return None
    return (
        f"Each of {len(channels):,} images seems to be {len(names)} files, one for each of "
        f"{text.shortened(names)}, and is taken for {len(names)} images. If they are its channels, "
        f"use --channel_files={ID}{ends.pop()}."
    )


def expression(pattern: str) -> re.Pattern[str]:
    """Returns what matches the paths that a pattern means.

    Raises:
        ArgumentError: if it has not {id} and {channel} once each.
    """
    if pattern.count(ID) != 1 or pattern.count(CHANNEL) != 1:
        raise errors.ArgumentError(
            "channel_files",
            pattern,
            f"must have {ID} and {CHANNEL} once each, as in {ID}_B{CHANNEL}.tif.",
        )
    escaped = re.escape(pattern)
    escaped = escaped.replace(re.escape(ID), r"(?P<id>[^/]+?)")
    escaped = escaped.replace(re.escape(CHANNEL), r"(?P<channel>[^/]+?)")
    return re.compile(rf"(?P<folder>.*/)?{escaped}")


def read(paths: tf.Tensor, channels: int) -> tf.Tensor:
    """Reads the files of an image, and returns it as the content () of one .npy file.

    What is wrong with them is reported where it is decoded.

    Args:
        paths: (c,) string.
        channels: c.
    """
    contents = [tf.io.read_file(path) for path in tf.unstack(paths, num=channels)]
    if tf.executing_eagerly():  # Then numpy_function would drop zeros at the end of the content.
        return tf.constant(joined(*(content.numpy() for content in contents)))

    def call(*contents: bytes) -> np.ndarray:
        return np.array(joined(*contents), object)

    return tf.ensure_shape(tf.numpy_function(call, contents, tf.string, stateful=False), [])


def joined(*contents: bytes) -> bytes:
    """Returns the content of a .npy file of the channels in some files."""
    try:
        planes = [_plane(content) for content in contents]
        if len({(plane.shape, plane.dtype) for plane in planes}) > 1:
            found = sorted({f"{p.shape[0]} x {p.shape[1]} of {p.dtype}" for p in planes})
            raise kinds.RefusedError(
                f"has channels of different sizes or types ({text.shortened(found)}); convert them "
                "to one"
            )
    except kinds.RefusedError as error:
        return array_files.REFUSED + str(error).encode()
    stacked = io.BytesIO()
    np.save(stacked, np.stack(planes, axis=-1))
    return stacked.getvalue()


def _plane(content: bytes) -> np.ndarray:
    """Returns the only channel (h, w) of a file."""
    if kinds.kind_of(content[: kinds.HEAD]) in _PICTURES:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode not in _DTYPES:
                raise kinds.RefusedError(
                    f"has a file that is not grey, but {image.mode}; each must have one channel"
                )
            return np.asarray(image).astype(_DTYPES[image.mode])
    array = array_files.read(content, 1)
    return array[..., 0]


def _check_complete(
    pattern: str, found: Mapping[str, Mapping[str, str]], channels: Sequence[str]
) -> None:
    lacking = {
        image: [name for name in channels if name not in files]
        for image, files in found.items()
        if not files.keys() >= set(channels)
    }
    if lacking:
        image, missing = min(lacking.items())
        raise errors.ArgumentError(
            "channel_files",
            pattern,
            f"finds no file of {text.shortened(missing)} for {image} and "
            f"{text.count(len(lacking) - 1, 'other image')}, out of {len(found):,}; restore these "
            "files, or name the channels that all images have (--channel_names).",
        )


def _natural(name: str) -> list[tuple[int, str]]:
    """Returns what sorts B2 before B10."""
    parts = re.findall(r"\d+|\D+", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
