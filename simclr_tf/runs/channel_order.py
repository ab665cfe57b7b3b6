"""Whether the named channels of a data set are those of some weights, in the same order."""

from __future__ import annotations

from simclr_tf import config as config_lib
from simclr_tf import console, errors, pixel_format, text
from simclr_tf.data import sources


def check(
    config: config_lib.Config,
    source: sources.Source,
    pixels: pixel_format.PixelFormat,
    origin: str,
) -> None:
    """Refuses channels that weights take in another order, and says which names differ.

    A network knows channels by their place only, so that the features of other orders are wrong
    without a sign of it.

    Args:
        config: the settings.
        source: the opened data set.
        pixels: the pixels that the weights take.
        origin: the weights, for messages.

    Raises:
        UserError: with the names in the order of the weights.
    """
    names = tuple(text.listed(config.channel_names)) or source.channel_names
    if names is None or names == pixels.names or not pixels.has_names:
        return
    theirs = ",".join(pixels.names)
    if set(pixels.names) <= set(names):
        remedy = (
            f"put the channels of the images into this order, and leave --channel_names out or set "
            f"it to {theirs}."
            if config.channel_files is None
            else f"set --channel_names={theirs}."
        )
        raise errors.UserError(
            f"The images of {source.name!r} have the channels {','.join(names)}, and the weights "
            f"of {origin} take {theirs}; {remedy}"
        )
    if len(names) == pixels.channels:
        console.warn(
            f"The channels {','.join(names)} of {source.name!r} are given, in this order, to "
            f"weights of {origin} that were trained on {theirs}."
        )
