"""Explains errors of TensorFlow and the system: what happened, and what the user can do."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import re

import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import console, distribute, errors, storage, text
from simclr_tf.data import array_records, decode, few_labels, folder, inspection, records
from simclr_tf.models import keras_encoders, user_encoders
from simclr_tf.runs import batches, checkpoints, dataset, directory, label_checks, opening

_EXCLUDE = "or exclude it with --max_bad_images (--mode=check_data lists all such images)."
_RESUME = (
    " The same command, with --resume_with_changes unless the image was repaired, then resumes "
    "from the last checkpoint."
)


def explain_training_error(run: opening.Run, error: Exception) -> Exception:
    """Explains that the disk is full, that memory ran out, and the like.

    Args:
        run: the run that failed.
        error: raised by TensorFlow or the system.

    Returns:
        The error to raise: a UserError with the explanation, or `error` if it is another one.
    """
    if not tf.io.gfile.isdir(run.model_dir):
        return errors.UserError(directory.missing(run.model_dir))
    reason = text.reason(error)
    kept = text.last_checkpoint(checkpoints.latest(run.model_dir))
    if storage.is_full(error):
        return errors.UserError(
            f"The disk of --model_dir={run.model_dir} is full ({reason}); {kept}; free some space "
            "and run the same command again to resume."
        )
    if isinstance(error, tf.errors.ResourceExhaustedError):
        batch, moves = run.config.train_batch_size, _moves_views(run)
        return out_of_memory("train_batch_size", batch, error, kept, moves_views=moves)
    if run.config.jit_compile and _is_xla_error(error):
        return errors.UserError(
            f"XLA cannot compile the training step with --encoder={run.config.encoder} "
            f"({reason[:200]}); leave out --jit_compile."
        )
    if batches.is_unlabelled_error(error):
        problem = f"An image of the split {run.data.train_split!r} has no label"
        return label_checks.unlabelled_error(run.config, problem)
    return find_unreadable_image(run, error) if isinstance(error, tf.errors.OpError) else error


def explained_encoder(config: config_lib.Config) -> contextlib.AbstractContextManager[None]:
    """Explains errors of a user's own encoder in this context."""
    if keras_encoders.is_users_own(config.encoder):
        return user_encoders.explained_in_training(config.encoder)
    return contextlib.nullcontext()


def _moves_views(run: opening.Run) -> bool:
    """Returns whether training may have moved the making of views to an accelerator."""
    return run.config.augment_on == "auto" and distribute.has_accelerator(run.strategy)


def out_of_memory(
    flag: str, batch: int, error: Exception, kept: str = "", *, moves_views: bool = False
) -> errors.UserError:
    """Returns the error to raise if memory ran out.

    Args:
        flag: name of the setting of the batch size.
        batch: its value.
        error: raised by TensorFlow.
        kept: the clause that names the last checkpoint, in training.
        moves_views: whether views may have been made on an accelerator, where they take memory,
            too.
    """
    host = ", or --augment_on=host if the accelerator made the views" if moves_views else ""
    return errors.UserError(
        f"Memory ran out with --{flag}={batch} ({text.reason(error)[:200]}); "
        f"{f'{kept}; ' if kept else ''}use a smaller batch, image size or network{host}."
    )


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
    remedy = _EXCLUDE + ("" if run.config.mode in ("eval", "embed", "audit") else _RESUME)
    unread = folder.unread_file(error)
    if unread is not None:
        return errors.UserError(
            f"The image {unread[0]} cannot be read ({unread[1]}); restore or remove it, {remedy}"
        )
    if not (
        folder.is_read_error(error) or decode.is_decode_error(error) or _is_record_error(run, error)
    ):
        return error
    source = run.data.source.with_pixels(run.architecture.pixels)
    for split in _used_splits(run):
        with console.working(f"Searching for the unreadable image in {split}"):
            with_pillow = dataset.has_pillow(run.config)
            found = inspection.first_unreadable(source, split, with_pillow=with_pillow)
        if found is not None:
            return errors.UserError(
                f"The image {found.name} of {split!r} {found.unreadable}; repair or remove it, "
                f"{remedy}"
            )
    return error


def _is_xla_error(error: Exception) -> bool:
    """Returns whether XLA lacks an operation of a graph, or needs a shape that is not known."""
    return bool(re.search(r"XLA_\w+_JIT|tf2xla|compile-time constant|No registered", str(error)))


def _is_record_error(run: opening.Run, error: tf.errors.OpError) -> bool:
    """Returns whether a record is damaged, or the system could not read a file of records."""
    if isinstance(error, tf.errors.DataLossError) or array_records.why_unread(error):
        return True
    reader = few_labels.unwrapped(run.data.source.reader)
    if not isinstance(reader, records.Records):
        return False
    return any(f"{path}; " in str(error) for path in reader.filenames())


def _used_splits(run: opening.Run) -> Iterator[str]:
    for split in dict.fromkeys((run.data.train_split, run.data.eval_split)):
        try:
            run.data.source.num_examples(split)
        except errors.UserError:
            continue  # No such split.
        yield split
