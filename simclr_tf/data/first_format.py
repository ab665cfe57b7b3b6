"""Finds out from the first images of a split what the pixels of all of them are."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from simclr_tf import errors, pixel_format, text
from simclr_tf.data import array_files, first_images, kinds, sources, stored

AUTO, PICTURES = "auto", "rgb"
_OF_PICTURES = ("uint8", "uint16")


def find(source: sources.Source, split: str, channels: str) -> pixel_format.PixelFormat:
    """Returns the format of the images of a split, with the whole range of values.

    Args:
        source: the opened data set.
        split: the split.
        channels: "rgb" decodes all images to 8-bit RGB; "auto" does that for pictures of 8 bits,
            and takes others as they are stored; a number takes all as they are stored.

    Raises:
        UserError: if the images differ, or have another number of channels.
    """
    known = source.known_pixels
    if channels == PICTURES:
        if known is not None and not known.is_rgb and known.dtype not in _OF_PICTURES:
            raise errors.ArgumentError(
                "channels",
                channels,
                f"decodes pictures, and {source.name} holds {known.described()}; leave it out.",
            )
        return pixel_format.RGB
    if known is not None and channels in (AUTO, str(known.channels)):
        return known
    found = _first(source, split, int(channels) if channels.isdecimal() else None)
    if channels == AUTO and _are_pictures(found):
        return pixel_format.RGB
    _check_equal(found)
    if not found:  # Training reports what it cannot read.
        return (
            pixel_format.RGB if channels == AUTO else pixel_format.of_dtype(int(channels), "uint8")
        )
    name, one = next(iter(found.items()))
    if channels not in (AUTO, str(one.channels)):
        raise errors.ArgumentError(
            "channels",
            channels,
            f"is not what the images have: {name} has {one.described()}; leave it out, or use "
            f"{one.channels}.",
        )
    return pixel_format.of_dtype(one.channels, one.dtype)


def _first(
    source: sources.Source, split: str, channels: int | None
) -> Mapping[str, array_files.Found]:
    """Returns what the first images hold, by name; stops at what cannot be read."""
    found: dict[str, array_files.Found] = {}
    try:
        for name, encoded in first_images.first_files(source, split):
            found[name] = _found(name, encoded, channels)
    except tf.errors.OpError:
        pass
    return found


def _found(name: str, encoded: bytes, channels: int | None) -> array_files.Found:
    try:
        return stored.found_in(encoded, channels)
    except kinds.RefusedError as error:
        remedy = " --channels=rgb would decode pictures to 8-bit RGB."
        if kinds.kind_of(encoded) == kinds.DICOM:
            remedy = ""
        raise errors.UserError(f"The image {name} {error}.{remedy}") from error


def _are_pictures(found: Mapping[str, array_files.Found]) -> bool:
    """Returns whether all images are pictures, some of them with 8 bits, or there are none."""
    if not found:
        return True
    small = [one for one in found.values() if one.is_picture]
    others = [one for one in found.values() if not one.is_picture]
    return bool(small) and all(one.dtype in _OF_PICTURES for one in others)


def _check_equal(found: Mapping[str, array_files.Found]) -> None:
    """Refuses images of different channels or types."""
    names: dict[tuple[int, str], str] = {}
    for name, one in found.items():
        names.setdefault((one.channels, one.dtype), name)
    if len(names) > 1:
        (first, name), (second, another) = list(names.items())[:2]
        raise errors.UserError(
            f"The images differ: {name} has {_described(first)}, and {another} has "
            f"{_described(second)}; convert them to one kind, or, if all are pictures, decode them "
            "to 8-bit RGB (--channels=rgb)."
        )


def _described(kind: tuple[int, str]) -> str:
    return f"{text.count(kind[0], 'channel')} of {kind[1]}"
