"""Checkpoints of a run: saving so that it can be killed at any moment, finding, restoring."""

from __future__ import annotations

import os
import re

import tensorflow as tf

from simclr_tf import console, errors, paths, storage, text
from simclr_tf.keras_api import keras
from simclr_tf.models import simclr
from simclr_tf.runs import best, checkpoint_files, directory, stored

_NAME = "ckpt"
_STEP = "global_step"
_STATE = "checkpoint"  # TensorFlow's list of the checkpoints, which this program only writes.
# What TensorFlow raises on damaged files (IndexError: a file cut short) and on a full disk.
_DAMAGED = (tf.errors.OpError, IndexError)
_UNWRITABLE = (tf.errors.OpError, OSError)


class Checkpoints:
    """The checkpoints of one run: model, optimizer, step and seconds of training.

    Attributes:
        step: () int64 variable, steps trained so far.
        seconds: () float64 variable, wall time spent in them.
    """

    def __init__(
        self,
        model_dir: str,
        model: simclr.SimCLR,
        optimizer: keras.optimizers.Optimizer | None,
        *,
        keep: int = 5,
    ) -> None:
        """Prepares to save and restore; call it outside the strategy's scope.

        There the step and the seconds are plain variables, one on the host and not one per replica.

        Args:
            model_dir: the run directory.
            model: its weights are saved.
            optimizer: its slots are saved; None to restore without training further.
            keep: number of checkpoints to keep, beside the best one of `best`.
        """
        self.model_dir = model_dir
        self.keep = keep
        self._model = model
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name=_STEP)
        self.seconds = tf.Variable(0.0, dtype=tf.float64, trainable=False, name="train_seconds")
        parts = {"model": stored.of_network(model), _STEP: self.step, "train_seconds": self.seconds}
        self._with_optimizer = optimizer is not None
        if optimizer is not None:
            parts["optimizer"] = stored.of_optimizer(optimizer)
        self._checkpoint = tf.train.Checkpoint(**parts)
        self.latest: str | None = None

    def save(self) -> str:
        """Writes a checkpoint of the current step, then removes the oldest and unfinished ones.

        The data are complete before their index appears, and old checkpoints are removed last,
        so one complete checkpoint exists at every moment.

        Raises:
            UserError: if the disk is full or not writable, or the run directory was deleted.
        """
        if not tf.io.gfile.isdir(self.model_dir):  # TensorFlow would create it again.
            raise errors.UserError(directory.missing(self.model_dir))
        prefix = os.path.join(self.model_dir, f"{_NAME}-{int(self.step)}")
        try:
            self._checkpoint.write(prefix)
        except _UNWRITABLE as error:
            checkpoint_files.remove(prefix)
            raise self._write_error(error) from error
        self.latest = prefix
        try:
            self._write_state(prefix)
            self.remove_old()
        except _UNWRITABLE as error:
            raise self._write_error(error) from error
        return prefix

    def _write_state(self, newest: str) -> None:
        """Writes the file `checkpoint`, in which other programs look for checkpoints.

        Its paths are relative to it, so that a run directory can be moved.
        """
        names = [os.path.basename(prefix) for prefix in listing(self.model_dir)]
        state = tf.compat.v1.train.generate_checkpoint_state_proto(
            "/", os.path.basename(newest), names
        )
        storage.replace(os.path.join(self.model_dir, _STATE), str(state))

    def remove_old(self) -> None:
        """Removes all but the newest checkpoints and the best one, and unfinished files."""
        complete, found = listing(self.model_dir), best.read(self.model_dir)
        for old in complete[: -self.keep]:
            if found is None or step_of(old) != found.step:
                checkpoint_files.remove(old)
        names = [os.path.basename(prefix) for prefix in complete]
        checkpoint_files.remove_unfinished(self.model_dir, _NAME, names)

    def _write_error(self, error: Exception) -> errors.UserError:
        kept = text.last_checkpoint(latest(self.model_dir))
        why = text.reason(error)
        what = storage.remedy(error, files=[os.path.join(self.model_dir, _STATE)])
        return errors.UserError(
            f"The checkpoint of step {int(self.step)} could not be written ({why}); {kept}; {what} "
            "and run the same command again to resume."
        )

    def write(self, prefix: str) -> None:
        """Writes the state under another name, which is not listed among the checkpoints."""
        self._checkpoint.write(prefix)

    def has_finite_weights(self) -> bool:
        """Returns whether all weights are finite; takes a small fraction of the time of `save`."""
        finite = [
            tf.reduce_all(tf.math.is_finite(variable))
            for variable in self._model.variables
            if variable.dtype.is_floating
        ]
        return bool(tf.reduce_all(finite))

    def restore(self, path: str) -> None:
        """Reads one whole checkpoint.

        Raises:
            UserError: if it does not fit the model or the optimizer, or is damaged.
        """
        try:
            status = self._checkpoint.read(paths.literal_prefix(path))
            if self._with_optimizer:
                status.assert_existing_objects_matched().assert_consumed()
            else:
                status.assert_existing_objects_matched().expect_partial()  # No optimizer here.
        except (AssertionError, ValueError) as error:
            raise errors.UserError(
                f"{path} does not fit this run ({_misfit(error)}); resume with the settings it was "
                f"trained with, which are in {directory.FLAGS} beside it, or use another "
                "--model_dir."
            ) from error
        except _DAMAGED as error:
            why = text.reason(error)
            raise errors.UserError(
                f"{path} is damaged ({why}); delete it to resume from the one before."
            ) from error
        self.latest = path

    def restore_latest(self) -> str | None:
        """Reads the newest checkpoint that is not damaged.

        Returns:
            Its path; None if there are no checkpoints at all.

        Raises:
            UserError: if there are checkpoints but none can be read.
        """
        paths = listing(self.model_dir)
        if not paths:
            return None
        path = newest_readable(paths)
        if path is None:
            raise errors.UserError(
                f"None of the checkpoints in {self.model_dir} can be read (damaged: "
                f"{', '.join(map(os.path.basename, paths))}); train again in another --model_dir."
            )
        self.restore(path)
        return path


def listing(model_dir: str) -> list[str]:
    """Returns the checkpoint prefixes of a run that are complete, oldest first."""
    found = []
    for name in storage.names_in(model_dir):
        match = re.fullmatch(rf"({_NAME}-([0-9]+))\.index", name)
        if match:
            found.append((int(match[2]), os.path.join(model_dir, match[1])))
    return [prefix for _, prefix in sorted(found)]


def steps(model_dir: str) -> list[int]:
    """Returns the steps of the complete checkpoints of a run, in their order."""
    return [step_of(prefix) for prefix in listing(model_dir)]


def latest(model_dir: str) -> str | None:
    """Returns the newest checkpoint of a run, or None."""
    found = listing(model_dir)
    return found[-1] if found else None


def step_of(prefix: str) -> int:
    """Returns the step in the name of a checkpoint that `listing` found."""
    return int(prefix.rpartition("-")[2])


def newest_readable(paths: list[str]) -> str | None:
    """Returns the last path whose checkpoint can be read, and warns about the damaged ones."""
    for path in reversed(paths):
        damage = damage_of(path)
        if damage is None:
            return path
        console.warn(f"The checkpoint {path} is damaged ({damage}); trying the one before.")
    return None


def damage_of(path: str) -> str | None:
    """Returns what is wrong with a checkpoint, or None.

    Every tensor is read, so that a truncated file is found before any variable is assigned.
    """
    try:
        reader = tf.train.load_checkpoint(paths.literal_prefix(path))
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except _DAMAGED as error:
        return text.reason(error)
    return None


def read_step(prefix: str) -> int:
    """Returns the number of steps trained that a checkpoint contains, 0 if it contains none."""
    reader = tf.train.load_checkpoint(paths.literal_prefix(prefix))
    name = f"{_STEP}/.ATTRIBUTES/VARIABLE_VALUE"
    return int(reader.get_tensor(name)) if reader.has_tensor(name) else 0


def load_part(prefix: str, model: simclr.SimCLR, part: str) -> str | None:
    """Fills one part of a network from a checkpoint.

    Args:
        prefix: path of the checkpoint, without the suffix of a file.
        model: the network to fill. If the part does not fit, some variables may have changed.
        part: name of the attribute of the model, such as "encoder".

    Returns:
        Why the part does not fit; None if it was loaded, or the model does not have it.
    """
    module: keras.Model | None = getattr(model, part)
    if module is None:
        return None
    try:
        checkpoint = tf.train.Checkpoint(
            model=tf.train.Checkpoint(**{part: stored.of_network(module)})
        )
        status = checkpoint.read(paths.literal_prefix(prefix))
        status.assert_existing_objects_matched().expect_partial()  # The other parts.
    except (AssertionError, ValueError) as error:
        return _misfit(error)
    return None


def _misfit(error: Exception) -> str:
    """Returns the reason from TensorFlow's long message about a checkpoint that does not fit."""
    names = re.findall(r"tf\.Variable '([^']+)'", str(error))
    if names:
        return f"nothing there for {text.shortened(names)}"
    shapes = re.search(
        r"tensor with shape (\(.*?\)) .* shape (\(.*?\)) and name (\S+)\.", str(error)
    )
    if shapes:
        return f"{shapes[3]} has the shape {shapes[1]} there and {shapes[2]} here"
    return text.reason(error)


def locate(checkpoint: str, *, flag: str = "checkpoint") -> tuple[str, list[str]]:
    """Finds the checkpoints at a path.

    Args:
        checkpoint: a run directory, the prefix of one checkpoint (PATH/ckpt-123), or the best one
            (PATH/best).
        flag: name of the flag with that path, for messages.

    Returns:
        The run directory, and the prefixes of its checkpoints, oldest first, or the one named.

    Raises:
        UserError: if there is none.
    """
    if tf.io.gfile.isdir(checkpoint):
        found = listing(checkpoint)
        if not found:
            raise errors.UserError(
                f"--{flag}={checkpoint} contains no checkpoint (no {_NAME}-STEP.index, and nothing "
                "of google-research/simclr); give the --model_dir of a finished or current "
                "training run."
            )
        return checkpoint, found
    prefix = re.sub(r"\.(index|data-\d+-of-\d+)$", "", checkpoint)
    run_dir, name = os.path.split(prefix)
    found_best = best.read(run_dir) if name == best.ALIAS else None
    if found_best is not None:
        prefix = os.path.join(run_dir, f"{_NAME}-{found_best.step}")
    if not tf.io.gfile.exists(f"{prefix}.index"):
        problem = "is not a checkpoint" if tf.io.gfile.exists(checkpoint) else "does not exist"
        raise errors.UserError(
            f"--{flag}={checkpoint} {problem}; name a run directory or a checkpoint in "
            f"it, such as runs/demo or runs/demo/{_NAME}-240."
        )
    return os.path.dirname(prefix), [prefix]
