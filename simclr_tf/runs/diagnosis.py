"""Explains errors of TensorFlow and the system: what happened, and what the user can do."""

from __future__ import annotations

from collections.abc import Iterator
import re

import tensorflow as tf

from simclr_tf import console, errors, storage, text
from simclr_tf.data import decode, folder, inspection
from simclr_tf.runs import checkpoints, dataset, opening

_REMEDY = (
    "or exclude it with --max_bad_images (--mode=check_data lists all such images). The same "
    "command, with --resume_with_changes unless the image was repaired, then resumes from the last "
    "checkpoint."
)


def explain_training_error(run: opening.Run, error: Exception) -> Exception:
    """Explains that the disk is full, that memory ran out, or that an image cannot be used.

    Args:
        run: the run that failed.
        error: raised by TensorFlow or the system.

    Returns:
        The error to raise: a UserError with the explanation, or `error` if it is another one.
    """
    reason = text.reason(error)
    kept = text.last_checkpoint(checkpoints.latest(run.model_dir))
    if storage.is_full(error):
        return errors.UserError(
            f"The disk of --model_dir={run.model_dir} is full ({reason}); {kept}; free some space "
            "and run the same command again to resume."
        )
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return errors.UserError(
            f"Memory ran out with --train_batch_size={run.config.train_batch_size} "
            f"({reason[:200]}); {kept}; use a smaller batch, image size or network."
        )
    return find_unreadable_image(run, error) if isinstance(error, tf.errors.OpError) else error


def find_unreadable_image(run: opening.Run, error: tf.errors.OpError) -> Exception:
    """Finds the image that could not be read or decoded.

    Args:
        run: the run that failed.
        error: raised by TensorFlow; if it is of decoding, it does not name the image.

    Returns:
        The error to raise: a UserError with the image's name, or `error` if it does not come from
        the images.

    Raises:
        UserError: if it is a record that cannot be read.
    """
    unread = folder.unread_file(error)
    if unread is not None:
        return errors.UserError(
            f"The image {unread[0]} cannot be read ({unread[1]}); restore or remove it, {_REMEDY}"
        )
    if not (
        folder.is_read_error(error) or decode.is_decode_error(error) or _is_record_error(error)
    ):
        return error
    for split in _used_splits(run):
        with console.working(f"Searching for the unreadable image in {split}"):
            with_pillow = dataset.has_pillow(run.config)
            found = inspection.first_unreadable(run.data.source, split, with_pillow=with_pillow)
        if found is not None:
            return errors.UserError(
                f"The image {found.name} of {split!r} {found.unreadable}; repair or remove it, "
                f"{_REMEDY}"
            )
    return error


def _is_record_error(error: tf.errors.OpError) -> bool:
    """Returns whether a record is damaged, or the system could not read a file of records."""
    if isinstance(error, tf.errors.DataLossError):
        return True
    return bool(re.search(r"-\d{5}-of-\d{5}; ", str(error)))


def _used_splits(run: opening.Run) -> Iterator[str]:
    for split in dict.fromkeys((run.data.train_split, run.data.eval_split)):
        try:
            run.data.source.num_examples(split)
        except errors.UserError:
            continue  # No such split.
        yield split
