"""The batch size of a run for which the user did not choose one."""

from __future__ import annotations

import dataclasses
import math

from simclr_tf import config as config_lib
from simclr_tf import errors, text


def fit(config: config_lib.Config, num_examples: int, replicas: int) -> config_lib.Config:
    """Returns the settings with a batch size that suits the data and the machine.

    That is the one of the settings, if it suits. Otherwise it is the largest that does not exceed
    it or the number of images: a power of two, or a power of two times the smallest batch that
    replicas, chunks and classes can divide.

    Args:
        config: the settings.
        num_examples: images to train on.
        replicas: number of replicas that train together.

    Raises:
        UserError: if there are too few images for any batch.
    """
    batch = config.train_batch_size
    unit = math.lcm(replicas * config.accum_chunks, config.samples_per_class or 1)
    smallest = max(2, unit)
    # Excluding unreadable images must not make the batch too large; that most are, is unlikely.
    images = num_examples - min(config.max_bad_images, num_examples // 2)
    if smallest > batch or (batch <= images and batch % unit == 0):
        return config
    if smallest > images:
        raise errors.UserError(
            f"Split {config.train_split!r} has {text.count(num_examples, 'image')}, and the "
            f"smallest possible batch is {smallest}{_why(config, replicas)}; add images, or set "
            f"--train_split to a larger split."
        )
    fitted = smallest * 2 ** int(math.log2(min(batch, images) // smallest))
    return dataclasses.replace(config, train_batch_size=fitted)


def _why(config: config_lib.Config, replicas: int) -> str:
    """Returns what makes the smallest batch larger than 2 images, in parentheses."""
    reasons = [f"{replicas} replicas"] if replicas > 1 else []
    for name, least in (("accum_chunks", 1), ("samples_per_class", 0)):
        if getattr(config, name) > least:
            reasons.append(f"--{name}={getattr(config, name)}")
    return f" ({', '.join(reasons)})" if reasons else ""
