"""Measures from which cosine two images are near-duplicates."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import console, errors, text
from simclr_tf.commands import embedded
from simclr_tf.data import decode, evaluation_images
from simclr_tf.embeddings import reading
from simclr_tf.evaluation import neighbours
from simclr_tf.runs import weights as weights_lib

# The threshold of near-duplicates is measured on this many images and their copies.
_COPIES, _COPY_QUALITY, _RECALL = 200, 50, 0.95


def measure(
    config: config_lib.Config, found: reading.Embeddings, weights: weights_lib.Weights | None
) -> float:
    """Returns the cosine that 95% of images have with a copy of themselves, as a poor JPEG.

    Raises:
        UserError: if the weights or the images are not there.
    """
    if not embedded.pixels_of(found).is_rgb:
        raise errors.UserError(
            "The cosine of near-duplicates is measured with copies as JPEG, which images of "
            f"{embedded.pixels_of(found).described()} cannot have; set --duplicate_cosine, such as "
            "to 0.98."
        )
    remedy = "set --duplicate_cosine, such as to 0.98, and nothing needs to be measured"
    try:
        model = embedded.network(found, weights)
        count = min(_COPIES, len(found.names))
        rows = np.random.default_rng(config.seed).choice(len(found.names), count, replace=False)
        contents = embedded.encoded_images(found, config, np.sort(rows)).values()
        if not contents:
            raise errors.UserError("The embedded images are not there; set --data_dir to them.")
        with console.working(f"Measuring the cosine of {len(contents)} images with copies"):
            side = found.manifest.image_size
            images = [evaluation_images.decoded(content, side).numpy() for content in contents]
            copies = [
                evaluation_images.decoded(_copy(content), side).numpy() for content in contents
            ]
            pairs = [
                neighbours.unit_rows(embedded.features_of(model, some, config.eval_batch_size))
                for some in (images, copies)
            ]
    except (errors.UserError, tf.errors.OpError) as error:
        raise errors.UserError(
            f"The cosine of near-duplicates cannot be measured ({text.reason(error)}); or {remedy}."
        ) from error
    return float(np.quantile(np.sum(pairs[0] * pairs[1], 1), 1 - _RECALL))


def _copy(content: tf.Tensor) -> tf.Tensor:
    """Returns an encoded image () compressed again as a JPEG of poor quality."""
    return tf.io.encode_jpeg(decode.decode_image(content), quality=_COPY_QUALITY)
