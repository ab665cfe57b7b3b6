"""Writes a network as a file of another runtime, and runs what was written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
import os
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from simclr_tf import console, errors
from simclr_tf.models import simclr
from simclr_tf.serving import bundle, forms, outputs, reloading, servable, versions

# Runs an export: prepared images (n, s, s, 3) float32 in [0, 1] -> its outputs by name.
Run = Callable[[np.ndarray], Mapping[str, np.ndarray]]
# Returns images (1, s, s, 3) float32 in [0, 1] like those to expect.
Samples = Callable[[], Iterable[np.ndarray]]
# Compares an export that runs, and the file or folder that it is in, with the network in float32;
# returns what is to be stored of that.
Examine = Callable[[Run, str], Mapping[str, Any]]


class Runtime(Protocol):
    """A module that writes and runs files of a runtime."""

    FILE: str

    def write(self, path: str, network: Prepared, dtype: str, samples: Samples | None) -> None:
        """Writes a file."""

    def load(self, path: str) -> Run:
        """Loads a file."""


class Prepared(tf.Module):
    """A network with one function, for prepared images.

    Values beyond [0, 1] are not refused, as `servable.Servable` does: other runtimes cannot.

    Attributes:
        names: what is returned, see `outputs`.
        feature_width: f, the length of the features.
        weights: the variables on which that depends.
        of_prepared: function of images (b, s, s, c) float32 in [0, 1].
    """

    def __init__(self, model: simclr.SimCLR, names: Sequence[str]) -> None:
        """Creates the function for the weights of a model, which it does not copy.

        Args:
            model: the network.
            names: from `outputs.choose`.
        """
        super().__init__(name="simclr")
        self.names = tuple(names)
        self.feature_width = model.encoder.num_features
        self.weights = outputs.variables(model, names)
        size = model.architecture.image_size
        channels = model.architecture.pixels.channels
        # A function holds the model, so that Keras does not add objects to the file.
        self.of_prepared = tf.function(
            lambda images: outputs.compute(model, images, names),
            input_signature=[
                tf.TensorSpec([None, size, size, channels], tf.float32, name="images")
            ],
            autograph=model.needs_autograph,
        )

    def signatures(self) -> dict[str, Any]:
        """Returns the function by the name of its signature."""
        return {servable.PREPARED: self.of_prepared}


def of_saved_model(folder: str) -> Run:
    """Returns what runs the signature `prepared` of a SavedModel."""
    return of_function(tf.saved_model.load(folder).signatures[servable.PREPARED])


def of_function(function: Any) -> Run:
    """Returns what runs a `tf.function` of images."""

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        found = function(images=tf.constant(images))
        return {name: values.numpy() for name, values in found.items()}

    return run


def export(
    model: simclr.SimCLR,
    model_dir: str,
    step: int,
    *,
    form: forms.Form,
    runtime: Runtime,
    examine: Examine,
    samples: Samples | None = None,
    keep: int = 1,
    names: Sequence[str] | None = None,
    weights_license: str | None = None,
) -> str:
    """Writes MODEL_DIR/FOLDER/STEP with a file of a runtime, and removes older ones.

    It is loaded again and compared with the network before it gets its final name.

    Args:
        model: the network in float32, independent of any strategy.
        model_dir: the run directory.
        step: name of the export.
        form: the form of the export.
        runtime: module that writes and runs its files.
        examine: measures what was written.
        samples: images from which int8 learns the ranges of values.
        keep: number of exports to keep.
        names: outputs, see `outputs.choose`.
        weights_license: licence of the weights, for the files that describe them.

    Returns:
        The folder written.

    Raises:
        UserError: if it cannot be converted or written, or gives other results.
    """
    names = outputs.choose(model, names)
    network = Prepared(model, names)

    def save(folder: str) -> None:
        tf.io.gfile.makedirs(folder)
        with console.working(f"Converting the network to {form.dtype}"):
            runtime.write(os.path.join(folder, runtime.FILE), network, form.dtype, samples)

    def complete(folder: str) -> None:
        path = os.path.join(folder, runtime.FILE)
        run = runtime.load(path)
        check(run, network, model.architecture, form)
        bundle.write(
            folder,
            network,
            model.architecture,
            model_dir,
            step,
            form=form,
            conversion=examine(run, path),
            weights_license=weights_license,
        )

    parent = os.path.join(model_dir, form.folder)
    return versions.write(parent, step, save, keep=keep, name=form.name, complete=complete)


def check(run: Run, network: Prepared, architecture: simclr.Architecture, form: forms.Form) -> None:
    """Compares the outputs for two images with those of the network in float32.

    Raises:
        UserError: if they differ by more than rounding.
    """
    images = reloading.prepared_pictures(architecture.image_size, architecture.pixels)
    want, got = of_function(network.of_prepared)(images.numpy()), run(images.numpy())
    differing = [
        name
        for name in network.names
        if (got[name].shape, got[name].dtype) != (want[name].shape, want[name].dtype)
        or not reloading.is_close(name, got[name], want[name], form.dtype)
    ]
    if differing:
        raise errors.UserError(
            f"The {form.name} was loaded again to check it, and its {' and '.join(differing)} "
            "differed from the network's, so it was not kept; report this as a bug, or use "
            "--format=serving."
        )
