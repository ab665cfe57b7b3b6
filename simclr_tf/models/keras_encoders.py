"""Encoders that are not ours: those of `tf.keras.applications`, and a person's own.

Two things change in them. Their batch norms become `batch_norm.BatchNorm`, which is synchronised
over replicas, obeys --batch_norm_decay and stays still where that is asked. And what draws random
numbers, dropout and stochastic depth, is switched off: contrastive learning has its noise in the
views, and a step in chunks must find the same features when it runs a chunk again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import difflib
import functools
import importlib
import inspect
import random

import numpy as np
import tensorflow as tf

from simclr_tf import errors
from simclr_tf.keras_api import keras
from simclr_tf.models import batch_norm, layers

RESNET, APPLICATION = "resnet", "keras:"

Preparation = Callable[[tf.Tensor], tf.Tensor]

_NORMS = (
    keras.layers.BatchNormalization,
    keras.layers.experimental.SyncBatchNormalization,
)


class KerasEncoder(keras.Model):
    """Any Keras model as encoder: images to features."""

    def __init__(self, make: layers.LayerMaker, *, encoder: str, image_size: int) -> None:
        """Makes the network and its variables.

        An application is built without weights and fed what its own `preprocess_input` makes of
        images in [0, 255], which is what weights published for it would expect. A person's
        function is called with `input_shape=(image_size, image_size, 3)`, and fed images in
        [0, 1]; the weights that it returns are kept, its random ones are functions of the seed.

        Args:
            make: its policy, seed and batch norms.
            encoder: "keras:NAME" or "MODULE:FUNCTION".
            image_size: side of the images.

        Raises:
            UserError: if there is no such network, it does not take images of this size, it does
                not return (n, h, w, f) or (n, f), or it holds a batch norm or a source of chance
                that cannot be replaced.
        """
        super().__init__(name="encoder")
        build, self._prepare = _found(encoder)
        shape = (image_size, image_size, 3)
        with _seeded(make.seed), _policy(make.policy):
            made = _built(build, encoder, shape)
            self.network = _adapted(made, make, encoder, shape)
        self.num_features = self._checked_features(encoder, shape)
        self.frozen_groups = -1

    def _checked_features(self, encoder: str, shape: tuple[int, ...]) -> int:
        found = self.network(self._prepare(tf.zeros([1, *shape])))
        if not tf.is_tensor(found) or len(found.shape) not in (2, 4) or found.shape[-1] is None:
            what = tuple(found.shape) if tf.is_tensor(found) else f"a {type(found).__name__}"
            raise errors.UserError(
                f"--encoder={encoder} maps one image to {what}; an encoder returns features "
                "(1, f) or a map (1, h, w, f)."
            )
        return int(found.shape[-1])

    def freeze(self, after_block: int) -> None:
        """Freezes everything at 4; -1 leaves what trains as the network came."""
        self.frozen_groups = after_block
        if after_block >= 0:
            self.network.trainable = False

    def call(self, images: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """Encodes images.

        Args:
            images: (n, h, w, 3) in [0, 1].
            training: normalises by batch statistics, unless frozen.

        Returns:
            "features" (n, f) float32, the mean over space if the network ends in a map; the same
            as "final_avg_pool".
        """
        live = training and self.frozen_groups < 0
        x = tf.cast(self.network(self._prepare(images), training=live), tf.float32)
        features = tf.reduce_mean(x, [1, 2]) if len(x.shape) == 4 else x  # (n, f)
        # Layers of others may forget how many images there were, which replicas must know.
        features = tf.ensure_shape(features, [images.shape[0], self.num_features])
        if self.frozen_groups >= 0:
            features = tf.stop_gradient(features)
        return {"features": features, "final_avg_pool": features}


def _built(build: Callable[..., keras.Model], encoder: str, shape: tuple[int, ...]) -> keras.Model:
    try:
        made = build(input_shape=shape)
    except (ValueError, TypeError) as error:
        told = " ".join(str(error).split()).rstrip(".")
        raise errors.UserError(
            f"--encoder={encoder} builds no network for images of {shape[0]} px ({told[:300]}); "
            "set another --image_size or --encoder."
        ) from error
    if not isinstance(made, keras.Model):
        raise errors.UserError(
            f"--encoder={encoder} returned a {type(made).__name__}; it must return a "
            "tf.keras.Model."
        )
    return made


def is_users_own(encoder: str) -> bool:
    """Returns whether an encoder is a user's function, "MODULE:FUNCTION"."""
    return encoder != RESNET and not encoder.startswith(APPLICATION)


def check(encoder: str) -> None:
    """Raises UserError unless an encoder can be found: "resnet", or one of `KerasEncoder`."""
    if encoder != RESNET:
        _found(encoder)


def _found(encoder: str) -> tuple[Callable[..., keras.Model], Preparation]:
    """Returns what builds the network, from input_shape, and what prepares images for it."""
    if encoder.startswith(APPLICATION):
        return _application(encoder)
    module, colon, function = encoder.partition(":")
    if colon and module and function:
        return _own(encoder, module, function), _as_they_are
    near = _near(encoder, [RESNET, *(APPLICATION + name for name in _applications())])
    raise errors.UserError(
        f"--encoder={encoder} is no encoder{near}; it takes resnet, keras:NAME of "
        "tf.keras.applications, or MODULE:FUNCTION."
    )


def _applications() -> list[str]:
    names = keras.applications
    return [name for name in dir(names) if inspect.isfunction(getattr(names, name))]


def _application(encoder: str) -> tuple[Callable[..., keras.Model], Preparation]:
    name = encoder[len(APPLICATION) :]
    known = _applications()
    if name not in known:
        near = _near(name, known) or f"; there are {', '.join(known)}"
        raise errors.UserError(f"--encoder={encoder}: tf.keras.applications has no {name!r}{near}.")
    function = getattr(keras.applications, name)
    prepare = next(
        (
            module.preprocess_input
            for _, module in inspect.getmembers(keras.applications, inspect.ismodule)
            if hasattr(module, name)
        ),
        _as_they_are,  # Some, as MobileNetV3, are in no module: they prepare images themselves.
    )

    def prepared(images: tf.Tensor) -> tf.Tensor:
        return prepare(255 * images)

    return functools.partial(function, include_top=False, weights=None), prepared


def _as_they_are(images: tf.Tensor) -> tf.Tensor:
    return images


def _own(encoder: str, module: str, function: str) -> Callable[..., keras.Model]:
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise errors.UserError(
            f"--encoder={encoder}: the module {module!r} cannot be imported ({error}); start the "
            "program from its folder, or name that folder in PYTHONPATH."
        ) from error
    build = getattr(found, function, None)
    if not callable(build):
        raise errors.UserError(
            f"--encoder={encoder}: {module} has no function {function!r}"
            f"{_near(function, [name for name in dir(found) if callable(getattr(found, name))])}."
        )
    return build


def _near(name: str, known: list[str]) -> str:
    by_lower = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name.lower(), list(by_lower), n=3, cutoff=0.5)
    return f" (near names: {', '.join(by_lower[one] for one in near)})" if near else ""


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Makes Keras's own initial weights a function of the seed."""
    before = random.getstate(), np.random.get_state()
    keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


@contextlib.contextmanager
def _policy(policy: keras.mixed_precision.Policy) -> Iterator[None]:
    """Gives layers that are made within this dtype policy."""
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(policy)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


def _adapted(
    made: keras.Model, make: layers.LayerMaker, encoder: str, shape: tuple[int, ...]
) -> keras.Model:
    """Returns the network with our batch norms and without chance; its other layers are shared."""
    adapted: dict[int, keras.layers.Layer] = {}  # A layer may be used more than once.
    norms: list[tuple[keras.layers.Layer, keras.layers.Layer]] = []  # theirs, ours

    def adapt(layer: keras.layers.Layer) -> keras.layers.Layer:
        if id(layer) not in adapted:
            adapted[id(layer)] = _adapt(layer, make, adapt)
            if isinstance(adapted[id(layer)], batch_norm.BatchNorm):
                norms.append((layer, adapted[id(layer)]))
        return adapted[id(layer)]

    made(tf.zeros([1, *shape]))  # Makes the variables of a network that has waited for images.
    network = adapt(made)
    network(tf.zeros([1, *shape]))
    if tf.executing_eagerly():  # In a graph of its own a network is only measured.
        for theirs, ours in norms:
            ours.set_weights(theirs.get_weights())
    for layer in network.submodules:
        if isinstance(layer, _NORMS) or _draws(layer):
            raise errors.UserError(
                f"--encoder={encoder} holds a {type(layer).__name__} ({layer.name}) that cannot be "
                "replaced by ours, which follows --global_bn and --accum_chunks; build the network "
                "by the functional interface or tf.keras.Sequential, channels last."
            )
    return network


def _adapt(
    layer: keras.layers.Layer,
    make: layers.LayerMaker,
    inner: Callable[[keras.layers.Layer], keras.layers.Layer],
) -> keras.layers.Layer:
    # Networks made by the functional interface or Sequential can be made again of other layers.
    if isinstance(layer, keras.Sequential) or getattr(layer, "_is_graph_network", False):
        return keras.models.clone_model(layer, clone_function=inner)
    if isinstance(layer, _NORMS) and _over_channels(layer):
        norm = make.norm(
            epsilon=layer.epsilon, center=layer.center, scale=layer.scale, name=layer.name
        )
        norm.trainable = layer.trainable
        return norm
    if _draws(layer):
        return keras.layers.Activation("linear", name=layer.name, dtype=make.policy)
    return layer


def _over_channels(norm: keras.layers.Layer) -> bool:
    axes = [norm.axis] if isinstance(norm.axis, int) else list(norm.axis)
    return axes in ([-1], [norm.input_spec.ndim - 1])


def _draws(layer: keras.layers.Layer) -> bool:
    chance = isinstance(layer, keras.__internal__.layers.BaseRandomLayer)
    return chance or type(layer).__name__ == "StochasticDepth"
