"""Opens the weights at a path once, whether this program or google-research/simclr wrote them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import functools
import os
from typing import Any

import tensorflow as tf

from simclr_tf import errors
from simclr_tf.models import simclr
from simclr_tf.reference import loading
from simclr_tf.runs import checkpoints, directory

# The parts of a network that load separately: attributes of `simclr.SimCLR`.
PARTS = ("encoder", "projection_head", "linear_head")


@dataclasses.dataclass(frozen=True)
class Weights:
    """Opened weights: what they are, and how to load them into a network.

    Attributes:
        origin: path of the checkpoint or of the SavedModel, for messages.
        folder: the folder that holds them; for a checkpoint of this program, its run directory.
        architecture: architecture of the network; None for a run directory without
            architecture.json.
        description: what they are, such as "checkpoint of step 240" or "TF2 SavedModel of
            google-research/simclr, ResNet-50 1x".
        step: steps trained, 0 if unknown.
        assumed: settings of the network that neither the weights nor a flags.json contain, with
            the values assumed for them, such as "image_size 224".
        unused: report lines about stored variables that no network takes.
        from_reference: whether google-research/simclr wrote them.
        flags: settings of the run that wrote them, from the flags.json of google-research/simclr.
    """

    origin: str
    folder: str
    architecture: simclr.Architecture | None
    description: str
    step: int
    _load: Callable[[simclr.SimCLR, str], str | None]
    assumed: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    from_reference: bool = False
    flags: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Classes of the linear head; None without one."""
        return None if self.architecture is None else self.architecture.class_names

    @property
    def several_labels(self) -> bool:
        """Whether the linear head gives an image any number of its classes."""
        return self.architecture is not None and self.architecture.several_labels

    def load(self, model: simclr.SimCLR, part: str) -> str | None:
        """Fills one part of a network.

        Args:
            model: the network to fill. If the part does not fit, some variables may have changed.
            part: one of PARTS.

        Returns:
            Why the weights do not fit, or None if they were loaded.

        Raises:
            UserError: if the files are damaged.
        """
        return self._load(model, part)


def open_weights(path: str, *, flag: str = "checkpoint") -> Weights:
    """Opens weights.

    Args:
        path: a run directory, the prefix of a checkpoint in one, or what google-research/simclr
            wrote: a SavedModel, a checkpoint of its TF2 or TF1 code, or a folder that holds one.
        flag: name of the flag with that path, for messages.

    Returns:
        The weights. Of a run directory, the newest checkpoint that can be read.

    Raises:
        UserError: if there are no weights, or they are damaged or incomplete.
    """
    reference = find_reference(path)
    return _open_run(path, flag) if reference is None else _from_reference(reference)


def find_reference(path: str) -> loading.ReferenceWeights | None:
    """Finds weights of google-research/simclr.

    Args:
        path: see `open_weights`.

    Returns:
        The weights; None for a run of this program, and if no variable has the reference's names.

    Raises:
        UserError: if they are damaged or incomplete.
    """
    folder = path if tf.io.gfile.isdir(path) else os.path.dirname(path)
    if directory.read_architecture(folder) is not None:
        return None
    return loading.find(path)


def _from_reference(reference: loading.ReferenceWeights) -> Weights:
    stored = reference.stored
    is_folder = tf.io.gfile.isdir(stored.origin)
    return Weights(
        origin=stored.origin,
        folder=stored.origin if is_folder else os.path.dirname(stored.origin),
        architecture=reference.architecture,
        description=reference.description,
        step=0,  # Training does not resume from these.
        _load=functools.partial(loading.load_part, reference),
        assumed=reference.assumed,
        unused=tuple(loading.unused_lines(reference)),
        from_reference=True,
        flags=stored.flags,
    )


def _open_run(path: str, flag: str) -> Weights:
    folder, prefixes = checkpoints.locate(path, flag=flag)
    prefix = checkpoints.newest_readable(prefixes)
    if prefix is None:
        damage = checkpoints.damage_of(prefixes[-1])
        raise errors.UserError(f"--{flag}={path} is damaged ({damage}); name another one.")
    step = checkpoints.read_step(prefix)
    return Weights(
        origin=prefix,
        folder=folder,
        architecture=directory.read_architecture(folder),
        description=f"checkpoint of step {step}",
        step=step,
        _load=functools.partial(checkpoints.load_part, prefix),
    )
