"""Writes networks in the format of google-research/simclr's SavedModels, for code that loads those.

The format has no serving signatures: the object itself is called, as `model(images,
trainable=False)`, and returns the features, the intermediate maps, the projection and the logits
under the reference's names. `trainable=True` normalises by batch statistics and updates the moving
averages, for fine-tuning. The variables also have the reference's names.
"""

from __future__ import annotations

from collections.abc import Callable
import os
from typing import Any

import tensorflow as tf

from simclr_tf import errors, keras_api
from simclr_tf.models import simclr
from simclr_tf.reference import mapping, names
from simclr_tf.serving import export

FOLDER = "saved_model_official"

Outputs = dict[str, tf.Tensor]
_MAPS = ("initial_conv", "initial_max_pool", *(f"block_group{group}" for group in range(1, 5)))


class ReferenceModel(tf.Module):
    """A network with the interface of the reference's SavedModels.

    Attributes:
        variables: all variables, in the order in which the reference creates them.
        trainable_variables: those to fine-tune.
        trainable_variables_list: the same, under its name in the reference's exports.
    """

    # Not the properties of tf.Module, which are not saved.
    variables: Any = None
    trainable_variables: Any = None

    def __init__(
        self, forward: Callable[[tf.Tensor, bool], Outputs], variables: list[tf.Variable]
    ) -> None:
        super().__init__(name="simclr_reference")
        self._forward = forward  # A function, so that no Keras objects are saved.
        self.variables = variables
        self.trainable_variables = [v for v in variables if v.trainable]
        self.trainable_variables_list = self.trainable_variables

    @tf.function(autograph=False)
    def __call__(self, inputs: tf.Tensor, trainable: bool) -> Outputs:
        """Runs the network.

        Args:
            inputs: (n, h, w, 3) float32 in [0, 1], already cropped and resized.
            trainable: normalises by batch statistics and updates the moving averages.

        Returns:
            "final_avg_pool" (n, f), "proj_head_input" (the same), "proj_head_output" (n, d),
            with a linear head "logits_sup" (n, c), and the maps (n, h', w', c') "initial_conv",
            "initial_max_pool" and "block_group1" to "block_group4".
        """
        return self._forward(inputs, trainable)


def reference_model(model: simclr.SimCLR) -> ReferenceModel:
    """Returns a copy of a network with the reference's interface, in which nothing is frozen.

    Raises:
        UserError: if the reference has no such network.
    """
    mapping.network_of(model.architecture)  # Raises before anything is copied.
    if not model.architecture.pixels.is_rgb:
        raise errors.UserError(
            "--format=official is for networks of 8-bit RGB images, and this one takes "
            f"{model.architecture.pixels.described()}; use --format=serving."
        )
    if model.architecture.pixels.is_standardized:
        raise errors.UserError(
            "--format=official has no place for the mean and the standard deviation of "
            "--standardize; use --format=serving."
        )
    plain = export.plain_copy(model)
    variables = _rename_variables(plain)

    def forward(images: tf.Tensor, training: bool) -> Outputs:
        maps = plain.encoder(images, training=training)
        stages = plain.projection_head(maps["features"], training=training)
        outputs = {name: maps[name] for name in _MAPS}
        outputs["final_avg_pool"] = outputs["proj_head_input"] = maps["features"]
        outputs["proj_head_output"] = stages[-1]
        if plain.linear_head is not None:
            stage = plain.projection_head.stage(plain.architecture.ft_proj_selector)
            outputs["logits_sup"] = plain.linear_head(stages[stage])
        return outputs

    module = ReferenceModel(forward, variables)
    images = tf.TensorSpec([None, None, None, 3], tf.float32, name="inputs")
    for trainable in (True, False):
        module.__call__.get_concrete_function(images, trainable=trainable)
    return module


def export_reference_model(
    model: simclr.SimCLR, model_dir: str, step: int, *, keep: int = 1
) -> str:
    """Writes MODEL_DIR/saved_model_official/STEP and removes older ones.

    Arguments and result are those of `export.export`.

    Raises:
        UserError: if the reference has no such network, or it cannot be written.
    """
    parent = os.path.join(model_dir, FOLDER)
    return export.write(reference_model(model), parent, step, signatures={}, keep=keep)


def _rename_variables(model: simclr.SimCLR) -> list[tf.Variable]:
    """Replaces the variables of a model by ones with the reference's names, and returns these."""
    weights = names.weights_of(mapping.network_of(model.architecture))
    by_key = mapping.variables_of(model)
    owners = {
        keras_api.raw(getattr(layer, leaf)).ref(): layer
        for leaf in {weight.leaf for weight in weights}
        for layer in keras_api.layers_in(model)
        if isinstance(keras_api.raw(getattr(layer, leaf, None)), tf.Variable)
    }
    variables = []
    for weight in weights:
        old = by_key[weight.key]
        named = tf.Variable(old, name=weight.variable, trainable=old.trainable)
        keras_api.replace(owners[old.ref()], weight.leaf, named)
        variables.append(named)
    return variables
