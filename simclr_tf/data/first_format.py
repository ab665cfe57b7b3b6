"""Finds out from the first images of a split what the pixels of all of them are."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from simclr_tf import errors, pixel_format, text
from simclr_tf.data import array_files, first_images, kinds, sources, stored

AUTO, PICTURES = "auto", "rgb"
_OF_PICTURES = ("uint8", "uint16")
_MOST_OF_PICTURES = 4  # channels
_PLANES = " Channels that are files of their own are put together with --channel_files."


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


def check_suits(
    source: sources.Source, split: str, pixels: pixel_format.PixelFormat, origin: str
) -> None:
    """Refuses a data set none of whose first images is what weights take.

    If only some are others, or cannot be read, they are reported where they are decoded.

    Args:
        source: the opened data set.
        split: the split.
        pixels: what the images must be.
        origin: the weights, for the message.

    Raises:
        UserError: with what the images are, and what the weights take.
    """
    others: dict[str, str] = {}
    try:
        for name, encoded in first_images.first_files(source, split):
            one = _as_decoded(encoded, pixels)
            if _suits(one, pixels):
                return
            others.setdefault(one.described(), name)
    except (tf.errors.OpError, kinds.RefusedError):
        return
    if not others:
        return
    has = " and ".join(f"{described} (as {name})" for described, name in others.items())
    takes = "pictures of 8 bits" if pixels.is_rgb else pixels.described()
    are_planes = all(described.startswith("1 channel ") for described in others)
    raise errors.UserError(
        f"The images of {split!r} of {source.name!r} have {has}, and the weights of {origin} take "
        f"{takes}; use images like those that the weights were trained on, or other weights."
        + (_PLANES if are_planes and pixels.channels > 1 and not pixels.is_rgb else "")
    )


def _as_decoded(encoded: bytes, pixels: pixel_format.PixelFormat) -> array_files.Found:
    """Returns what an image holds that is decoded as some pixels."""
    try:
        found = stored.found_in(encoded, pixels.channels)
    except kinds.RefusedError:  # An array of other channels.
        found = stored.found_in(encoded)
    if not found.is_picture or pixels.is_rgb or not array_files.is_array(encoded):
        return found
    array = array_files.read(encoded)  # A TIFF that is a picture may have one channel or four.
    return array_files.Found(array.shape[-1], array.dtype.name)


def _suits(found: array_files.Found, pixels: pixel_format.PixelFormat) -> bool:
    """Returns whether an image can be decoded as some pixels."""
    if pixels.is_rgb:
        return found.dtype in _OF_PICTURES and found.channels <= _MOST_OF_PICTURES
    return (found.channels, found.dtype) == (pixels.channels, pixels.dtype)


def _first(
    source: sources.Source, split: str, channels: int | None
) -> Mapping[str, array_files.Found]:
    """Returns what the first images hold, by name; stops at what cannot be read.

    Raises:
        UserError: if none of them can be used; others are reported where they are decoded.
    """
    found: dict[str, array_files.Found] = {}
    refused: list[errors.UserError] = []
    try:
        for name, encoded in first_images.first_files(source, split):
            try:
                found[name] = stored.found_in(encoded, channels)
            except kinds.RefusedError as error:
                refused.append(_refusal(name, encoded, error))
    except tf.errors.OpError:
        pass
    if refused and not found:
        raise refused[0]
    return found


def _refusal(name: str, encoded: bytes, error: kinds.RefusedError) -> errors.UserError:
    remedy = " --channels=rgb would decode pictures to 8-bit RGB."
    if kinds.kind_of(encoded) == kinds.DICOM:
        remedy = ""
    return errors.UserError(f"The image {name} {error}.{remedy}")


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
