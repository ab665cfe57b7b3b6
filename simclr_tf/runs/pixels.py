"""What the pixels of a run's images are: those of the weights that it reads, or of its data."""

from __future__ import annotations

import dataclasses

from simclr_tf import config as config_lib
from simclr_tf import console, errors, pixel_format, text
from simclr_tf.data import first_format, sources
from simclr_tf.data import scale as scale_lib
from simclr_tf.runs import channel_order, checkpoints, dataset, directory
from simclr_tf.runs import weights as weights_lib


def settle(
    config: config_lib.Config, data: dataset.Data, weights: weights_lib.Weights | None
) -> tuple[pixel_format.PixelFormat, bool]:
    """Returns the format of the images of a run, and whether their scale is yet to be measured.

    A run that goes on, or that is evaluated, has that of its weights. One that starts from weights
    of such images has their scale, unless --scale or --standardize asks for another.

    Args:
        config: the settings.
        data: the data set and its splits.
        weights: the weights of --checkpoint; None without one.

    Raises:
        UserError: if the images differ, or do not suit the settings.
    """
    if config.model_dir is not None and checkpoints.latest(config.model_dir):
        own = directory.read_architecture(config.model_dir)
        pixels = pixel_format.RGB if own is None else own.pixels
        channel_order.check(config, data.source, pixels, config.model_dir)
        if config.mode == "eval":
            _check_evaluated(config, pixels)
            first_format.check_suits(data.source, data.train_split, pixels, config.model_dir)
        return pixels, False
    theirs = None if weights is None else of_weights(weights)
    if theirs is not None and weights is not None and config.mode == "eval":
        check_suits(config, data.source, data.train_split, theirs, weights.origin)
        _check_evaluated(config, theirs)
        return theirs, False
    found = first_format.find(data.source, data.train_split, config.channels)
    if theirs is not None and weights is not None and theirs.channels == found.channels:
        channel_order.check(config, data.source, theirs, weights.origin)
    if theirs is not None and theirs.same_pixels(found) and keeps_scale(config, theirs):
        return _named(config, theirs, data.source.channel_names), False
    found = _named(config, found, data.source.channel_names)
    scale = resolved_scale(config, found)
    return found, scale != pixel_format.DTYPE or config.standardize


def check_suits(
    config: config_lib.Config,
    source: sources.Source,
    split: str,
    pixels: pixel_format.PixelFormat,
    origin: str,
) -> None:
    """Refuses images whose channels or values are not those that weights take.

    Args:
        config: the settings.
        source: the opened data set.
        split: the split whose first images are looked at.
        pixels: the pixels that the weights take.
        origin: the weights, for messages.

    Raises:
        UserError: with what the images are, and what the weights take.
    """
    channel_order.check(config, source, pixels, origin)
    first_format.check_suits(source, split, pixels, origin)


def keeps_scale(config: config_lib.Config, pixels: pixel_format.PixelFormat) -> bool:
    """Returns whether a run that starts from weights keeps the scale of their images."""
    is_asked = config.standardize and not pixels.is_standardized
    return config.scale == config_lib.Config.scale and not is_asked


def _check_evaluated(config: config_lib.Config, pixels: pixel_format.PixelFormat) -> None:
    """Refuses settings that an evaluation cannot change, because they belong to the weights."""
    if config.scale not in (config_lib.Config.scale, pixels.scale):
        raise errors.ArgumentError(
            "scale",
            config.scale,
            f"cannot be changed in an evaluation: the weights were trained with {pixels.scale}; "
            "leave it out.",
        )
    if config.standardize and not pixels.is_standardized:
        raise errors.ArgumentError(
            "standardize",
            config.standardize,
            "cannot be changed in an evaluation: the weights were trained without it; leave it "
            "out.",
        )
    names = tuple(text.listed(config.channel_names))
    if names and names != pixels.names:
        raise errors.ArgumentError(
            "channel_names",
            config.channel_names,
            "are not those that the weights were trained with, which are "
            f"{','.join(pixels.names)}; leave it out.",
        )


def of_weights(weights: weights_lib.Weights) -> pixel_format.PixelFormat:
    """Returns the format of the images that weights were trained on."""
    return pixel_format.RGB if weights.architecture is None else weights.architecture.pixels


def resolved_scale(config: config_lib.Config, pixels: pixel_format.PixelFormat) -> str:
    """Returns how the scale is found: if --scale is "auto", by the type of 8-bit images.

    Raises:
        UserError: if the type of the images does not suit it.
    """
    if config.scale == config_lib.Config.scale:
        return pixel_format.DTYPE if pixels.dtype == "uint8" else pixel_format.PERCENTILE
    is_float = pixels.dtype == "float32"
    if config.scale == pixel_format.DTYPE and is_float:
        raise errors.ArgumentError(
            "scale",
            config.scale,
            "is for whole numbers, and the images hold float32, which have no greatest value; use "
            "percentile or minmax, or none if their values are from 0 to 1.",
        )
    if config.scale == pixel_format.NONE and not is_float:
        raise errors.ArgumentError(
            "scale",
            config.scale,
            f"is for float32 from 0 to 1, and the images hold {pixels.dtype}; use dtype, "
            "percentile or minmax.",
        )
    return config.scale


def measure(
    config: config_lib.Config, data: dataset.Data, pixels: pixel_format.PixelFormat
) -> pixel_format.PixelFormat:
    """Returns the format with its scale, for which every training image is read once.

    Args:
        config: the settings.
        data: the data set, without unreadable images.
        pixels: the format without it.

    Raises:
        UserError: if the images do not suit the scale.
        tf.errors.OpError: if an image cannot be read.
    """
    source, split = data.source.with_pixels(pixels), data.train_split
    with console.Progress(
        f"the values of {split}", source.num_examples(split), slow_start=True
    ) as progress:
        found, notes = scale_lib.measure(
            source,
            split,
            resolved_scale(config, pixels),
            percentile=config.scale_percentile,
            standardize=config.standardize,
            with_python=dataset.has_pillow(config),
            done=progress.update,
        )
    for note in notes:
        console.warn(note)
    return found


def _named(
    config: config_lib.Config,
    pixels: pixel_format.PixelFormat,
    known: tuple[str, ...] | None,
) -> pixel_format.PixelFormat:
    """Returns the format with the names of --channel_names, or those that the data has.

    Raises:
        UserError: if there are not as many as channels.
    """
    names = tuple(text.listed(config.channel_names)) or known
    if names is None:
        return pixels
    if len(names) != pixels.channels or len(set(names)) != len(names):
        raise errors.UserError(
            f"--channel_names={config.channel_names} has {text.count(len(names), 'name')}, and the "
            f"images have {pixels.described()}; name each channel once, in their order."
        )
    return pixels.with_names(names)


def applied(data: dataset.Data, pixels: pixel_format.PixelFormat) -> dataset.Data:
    """Returns the data whose images are decoded in a format."""
    return dataclasses.replace(data, source=data.source.with_pixels(pixels))
