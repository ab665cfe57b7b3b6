"""Measures the scale of a run's images, unless it has that of weights."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from simclr_tf.runs import diagnosis, opening
from simclr_tf.runs import pixels as pixels_lib


def with_scale(run: opening.Run) -> opening.Run:
    """Returns the run with the scale of its images.

    Args:
        run: the run, without unreadable images.

    Raises:
        UserError: if the images do not suit the scale, or one cannot be read.
    """
    if not run.needs_scale:
        return run
    try:
        pixels = pixels_lib.measure(run.config, run.data, run.architecture.pixels)
    except tf.errors.OpError as error:
        raise diagnosis.find_unreadable_image(run, error) from error
    architecture = dataclasses.replace(run.architecture, pixels=pixels)
    data = pixels_lib.applied(run.data, pixels)
    return dataclasses.replace(run, data=data, architecture=architecture, needs_scale=False)
