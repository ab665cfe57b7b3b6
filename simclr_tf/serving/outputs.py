"""What the signatures of a SavedModel return: names, and how each is computed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import tensorflow as tf

from simclr_tf import errors, keras_api
from simclr_tf.config.sections import serving as settings
from simclr_tf.models import simclr

# Output of the signatures of encoded images: whether an image could be decoded.
VALID = "valid"
# The most classes that `top_classes` lists, and what it has for an image that is not valid.
NUM_TOP, _NO_CLASS = 5, -1
_OF_CLASSES = ("logits", "probabilities", "top_classes")
# What each output is, for people; b images, f features, d outputs of the projection head,
# c classes.
DESCRIPTIONS = {
    "features": "(b, f) float32, the output of the encoder and the input of the heads",
    "embedding": "(b, f) float32, the features divided by their length, for cosine similarity",
    "projection": "(b, d) float32, the output of the projection head, not normalised",
    "logits": "(b, c) float32, the scores of the classes, in their order",
    "probabilities": "(b, c) float32, the softmax of the logits; their sum is 1",
    "top_classes": f"(b, k) int32, the positions of the k likeliest classes, the likeliest first; "
    f"k is {NUM_TOP}, or c if there are fewer; {_NO_CLASS} for an image that is not valid",
    VALID: "(b,) bool, whether the image could be decoded; if not, its other outputs are zeros",
}


# What differs where an image may have several labels.
_OF_SEVERAL = {
    "logits": "(b, c) float32, the log odds that the image shows each class, in their order",
    "probabilities": "(b, c) float32, the sigmoid of the logits: the probability that the image "
    "shows the class, of each class by itself; their sum is not 1",
    "top_classes": f"{DESCRIPTIONS['top_classes']}; an image may show fewer of them, or more",
}


def describe(name: str, *, several_labels: bool) -> str:
    """Returns what an output is, for people.

    Args:
        name: its name.
        several_labels: whether an image may have several labels.
    """
    of_several = _OF_SEVERAL.get(name) if several_labels else None
    return of_several or DESCRIPTIONS[name]


def choose(model: simclr.SimCLR, requested: Sequence[str] | None) -> tuple[str, ...]:
    """Returns the outputs of an export, in the order of `settings.OUTPUTS`.

    Args:
        model: the network to export.
        requested: names of outputs; None chooses the features and, of a network with a linear
            head, the logits.

    Raises:
        UserError: if the network has no head for a requested output.
    """
    if requested is None:
        return ("features",) if model.linear_head is None else ("features", "logits")
    missing = [name for name in requested if name in _OF_CLASSES]
    if missing and model.linear_head is None:
        raise errors.UserError(
            f"--export_outputs={','.join(requested)} asks for {' and '.join(missing)}, and the "
            "network has no linear head; leave them out, or export a run with labels."
        )
    return tuple(name for name in settings.OUTPUTS if name in requested)


def compute(model: simclr.SimCLR, images: tf.Tensor, names: Iterable[str]) -> dict[str, tf.Tensor]:
    """Returns the outputs of these names for prepared images.

    Runs only the layers that they depend on.

    Args:
        model: the network.
        images: (n, s, s, 3) float32 in [0, 1].
        names: from `choose`.
    """
    names = set(names)
    if "projection" in names:
        found = model.call(images)
    elif names.intersection(_OF_CLASSES):
        found = model.infer(images)
    else:
        found = {"features": model.encode(images)}
    if "embedding" in names:
        found["embedding"] = tf.math.l2_normalize(found["features"], -1)
    if "probabilities" in names:
        several = model.architecture.several_labels
        to_probabilities = tf.nn.sigmoid if several else tf.nn.softmax
        found["probabilities"] = to_probabilities(found["logits"])
    if "top_classes" in names:
        k = min(NUM_TOP, found["logits"].shape[-1])
        found["top_classes"] = tf.math.top_k(found["logits"], k).indices
    return {name: found[name] for name in names}


def variables(model: simclr.SimCLR, names: Iterable[str]) -> list[tf.Variable]:
    """Returns the variables on which these outputs depend."""
    names = set(names)
    layers = [model.encoder]
    if "projection" in names:
        return list(model.variables)
    if names.intersection(_OF_CLASSES):
        layers = model.inference_layers()
    return [variable for layer in layers for variable in keras_api.variables(layer)]


def blank(outputs: dict[str, tf.Tensor], valid: tf.Tensor) -> dict[str, tf.Tensor]:
    """Replaces the outputs of images that are not valid, and adds `VALID`.

    Args:
        outputs: by name, (b, w).
        valid: (b,) bool.
    """
    blanks = {name: _NO_CLASS if name == "top_classes" else 0 for name in outputs}
    kept = {
        name: tf.where(valid[:, tf.newaxis], values, tf.cast(blanks[name], values.dtype))
        for name, values in outputs.items()
    }
    return {**kept, VALID: valid}
