"""From an error of TensorFlow or the system to what the user can do about it."""

from __future__ import annotations

import re

import tensorflow as tf

from simclr_tf import console, errors, storage
from simclr_tf.data import decode, inspection
from simclr_tf.runs import checkpoints, opening


def blame_resource(run: opening.Run, error: Exception) -> Exception:
    """Finds out what ran out: the disk or the memory.

    Args:
        run: of which.
        error: what TensorFlow or the system raised.

    Returns:
        What to raise: a UserError that says so, or `error` if it is something else.
    """
    told, latest = storage.reason(error), checkpoints.latest(run.model_dir)
    kept = f"the last complete checkpoint is {latest}" if latest else "there is no checkpoint yet"
    if re.search("No space left|File too large|quota", str(error)):
        return errors.UserError(
            f"The disk of --model_dir={run.model_dir} is full ({told}); {kept}; free some space "
            "and run the same command again to go on."
        )
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return errors.UserError(
            f"Memory ran out with --train_batch_size={run.config.train_batch_size} ({told[:200]}); "
            f"{kept}; set a smaller batch, image size or network."
        )
    return error


def blame_image(run: opening.Run, error: tf.errors.OpError) -> Exception:
    """Finds the image that does not decode.

    Args:
        run: of which.
        error: what TensorFlow raised, which does not name the image.

    Returns:
        What to raise: a UserError with the image's name, or `error` if every image decodes or the
        error is not of a decoding op.
    """
    if not decode.is_decode_error(error):
        return error
    for split in {run.config.train_split, run.config.eval_split}:
        try:
            with console.working(f"looked for the damaged image in {split}"):
                found = inspection.first_unreadable(run.source, split)
        except errors.UserError:
            continue  # No such split.
        if found is not None:
            return errors.UserError(
                f"The image {found.name} of {split!r} {found.unreadable}; repair it or take it "
                "out, or leave it out by --max_bad_images (--mode=check_data lists all such "
                "images). "
                "Training goes on from the last checkpoint when you run the same command again."
            )
    return error
