"""Explains errors of TensorFlow and the system: what happened, and what the user can do."""

from __future__ import annotations

import re

import tensorflow as tf

from simclr_tf import console, errors, text
from simclr_tf.data import decode, inspection
from simclr_tf.runs import checkpoints, opening


def explain_resource_error(run: opening.Run, error: Exception) -> Exception:
    """Explains that the disk is full or that memory ran out.

    Args:
        run: the run that failed.
        error: raised by TensorFlow or the system.

    Returns:
        The error to raise: a UserError with the explanation, or `error` if it is another one.
    """
    reason = text.reason(error)
    kept = text.last_checkpoint(checkpoints.latest(run.model_dir))
    if re.search("No space left|File too large|quota", str(error)):
        return errors.UserError(
            f"The disk of --model_dir={run.model_dir} is full ({reason}); {kept}; free some space "
            "and run the same command again to resume."
        )
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return errors.UserError(
            f"Memory ran out with --train_batch_size={run.config.train_batch_size} "
            f"({reason[:200]}); {kept}; use a smaller batch, image size or network."
        )
    return error


def find_undecodable_image(run: opening.Run, error: tf.errors.OpError) -> Exception:
    """Finds the image that could not be decoded.

    Args:
        run: the run that failed.
        error: raised by TensorFlow; it does not name the image.

    Returns:
        The error to raise: a UserError with the image's name, or `error` if every image decodes, or
        if the error is not of a decoding op.
    """
    if not decode.is_decode_error(error):
        return error
    for split in {run.data.train_split, run.data.eval_split}:
        try:
            with console.working(f"Searching for the unreadable image in {split}"):
                found = inspection.first_unreadable(run.data.source, split)
        except errors.UserError:
            continue  # No such split.
        if found is not None:
            return errors.UserError(
                f"The image {found.name} of {split!r} {found.unreadable}; repair or remove it, or "
                "exclude it with --max_bad_images (--mode=check_data lists all such images). The "
                "same command then resumes from the last checkpoint."
            )
    return error
