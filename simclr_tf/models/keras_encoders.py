"""Encoders other than the built-in ResNets.

These are the networks of `tf.keras.applications`, and users' own Keras models.

Two kinds of layers are replaced in them. Batch norms become `batch_norm.BatchNorm`, which is
synchronised over replicas, has the momentum of the other batch norms of the network, and can leave
its moving averages unchanged. Random layers, dropout and stochastic depth, become the identity:
contrastive learning has its noise in the views, and a training step in chunks must compute the same
features when it runs a chunk a second time.

An application takes three channels. Images of others pass a convolution of one pixel first, an
adapter, which is trained with the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import functools
import inspect
import random

import numpy as np
import tensorflow as tf

from simclr_tf import errors, keras_api, text
from simclr_tf.keras_api import keras
from simclr_tf.models import batch_norm, layers, stem_channels, user_encoders

RESNET, APPLICATION = "resnet", "keras:"
_OF_APPLICATIONS = 3  # channels

Preprocessing = Callable[[tf.Tensor], tf.Tensor]


class KerasEncoder(keras_api.Model):
    """Any Keras model that maps images to features, as an encoder."""

    def __init__(
        self, layer_maker: layers.LayerMaker, *, encoder: str, image_size: int, channels: int = 3
    ) -> None:
        """Builds the network and creates its variables.

        An application is built with random weights. Its input is the output of its own
        `preprocess_input` for images in [0, 255], as its published weights expect. A user's
        function is called with `input_shape=(image_size, image_size, channels)`, and the input of
        its network is images in [0, 1]. Weights that the function sets are kept; those that Keras
        initialises are functions of the seed.

        Args:
            layer_maker: source of the dtype policy, the seed and the batch norms.
            encoder: "keras:NAME" or "MODULE:FUNCTION".
            image_size: side of the images.
            channels: their channels.

        Raises:
            ArgumentError: if there is no such network, it does not accept images of this size, it
                does not return (n, h, w, f) or (n, f), or it contains a batch norm or a random
                layer that cannot be replaced.
        """
        super().__init__(name="encoder")
        build, self._preprocess = _find(encoder)
        is_adapted = encoder.startswith(APPLICATION) and channels != _OF_APPLICATIONS
        self.adapter = _adapter(channels) if is_adapted else None
        shape = (image_size, image_size, _OF_APPLICATIONS if is_adapted else channels)
        with _seeded(layer_maker.seed), _policy(layer_maker.policy):
            original = _build(build, encoder, shape)
            with _explained(encoder, "when its network was built"):
                self.network = _replace_layers(original, layer_maker, encoder, shape)
        self.num_features = self._check_output(encoder, shape)
        self.frozen_groups = -1

    def _check_output(self, encoder: str, shape: tuple[int, ...]) -> int:
        """Returns the number of features."""
        if is_users_own(encoder):
            images = tf.random.stateless_uniform([2, *shape], [0, 0])
            user_encoders.check_output(encoder, self.network, images)
        output = self.network(self._preprocess(tf.zeros([1, *shape])))
        is_tensor = tf.is_tensor(output)
        if not is_tensor or len(output.shape) not in (2, 4) or output.shape[-1] is None:
            returned = tuple(output.shape) if is_tensor else f"a {type(output).__name__}"
            raise errors.ArgumentError(
                "encoder",
                encoder,
                f"maps one image to {returned}; an encoder must return features (1, f) or a map "
                "(1, h, w, f).",
            )
        return int(output.shape[-1])

    def freeze(self, after_block: int) -> None:
        """Freezes the whole encoder, or nothing if `after_block` is -1."""
        self.frozen_groups = after_block
        if after_block >= 0:
            self.network.trainable = False
            if self.adapter is not None:
                self.adapter.trainable = False

    def call(self, images: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """Encodes images.

        Args:
            images: (n, h, w, c) in [0, 1].
            training: whether to normalise by batch statistics, unless frozen.

        Returns:
            "features" (n, f) float32, the spatial mean if the network returns a map, and the same
            as "final_avg_pool".
        """
        if self.adapter is not None:
            images = self.adapter(images)
        use_batch_statistics = training and self.frozen_groups < 0
        x = self.network(self._preprocess(images), training=use_batch_statistics)
        x = tf.cast(x, tf.float32)
        features = tf.reduce_mean(x, [1, 2]) if len(x.shape) == 4 else x  # (n, f)
        # Layers may lose the static number of images, which replicas need to gather features.
        features = tf.ensure_shape(features, [images.shape[0], self.num_features])
        if self.frozen_groups >= 0:
            features = tf.stop_gradient(features)
        return {"features": features, "final_avg_pool": features}


def _adapter(channels: int) -> keras.layers.Layer:
    """Returns the layer from images of some channels to three, with its weights."""

    def initial(shape: tuple[int, ...], dtype: tf.DType, **_: object) -> tf.Tensor:
        weights = stem_channels.averaging(channels, _OF_APPLICATIONS)
        return tf.reshape(tf.constant(weights, dtype), shape)

    adapter = keras.layers.Conv2D(
        filters=_OF_APPLICATIONS,
        kernel_size=1,
        use_bias=False,
        kernel_initializer=initial,
        dtype="float32",
        name="adapter",
    )
    adapter.build([None, None, None, channels])
    return adapter


def _build(build: Callable[..., keras.Model], encoder: str, shape: tuple[int, ...]) -> keras.Model:
    try:
        with _explained(encoder, f"when it was called with input_shape={shape}"):
            network = build(input_shape=shape)
    except errors.ArgumentError:
        raise
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise errors.ArgumentError(
            "encoder",
            encoder,
            f"cannot be built for images of {shape[0]} px ({reason[:300]}); set another image_size "
            "or encoder.",
        ) from error
    if not isinstance(network, keras.Model):
        raise errors.ArgumentError(
            "encoder",
            encoder,
            f"returned a {type(network).__name__}; it must return a tf.keras.Model.",
        )
    return network


def _explained(encoder: str, when: str) -> contextlib.AbstractContextManager[None]:
    """Explains errors of a user's own encoder in this context."""
    if is_users_own(encoder):
        return user_encoders.explained(encoder, when)
    return contextlib.nullcontext()


def is_users_own(encoder: str) -> bool:
    """Returns whether an encoder is a user's function, "MODULE:FUNCTION"."""
    return encoder != RESNET and not encoder.startswith(APPLICATION)


def check(encoder: str) -> None:
    """Raises ArgumentError unless an encoder exists: "resnet", or one of `KerasEncoder`."""
    if encoder != RESNET:
        _find(encoder)


def _find(encoder: str) -> tuple[Callable[..., keras.Model], Preprocessing]:
    """Returns the function that builds the network from an input_shape, and its preprocessing."""
    if encoder.startswith(APPLICATION):
        return _application(encoder)
    module, colon, function = encoder.partition(":")
    if colon and module and function:
        return user_encoders.find(encoder), _unchanged
    near = text.suggestion(encoder, [RESNET, *(APPLICATION + name for name in _applications())])
    raise errors.ArgumentError(
        "encoder",
        encoder,
        f"is not an encoder{near}; it must be resnet, keras:NAME of tf.keras.applications, or "
        "MODULE:FUNCTION.",
    )


def _applications() -> list[str]:
    names = keras.applications
    return [name for name in dir(names) if inspect.isfunction(getattr(names, name))]


def _application(encoder: str) -> tuple[Callable[..., keras.Model], Preprocessing]:
    name = encoder[len(APPLICATION) :]
    known = _applications()
    if name not in known:
        near = text.suggestion(name, known) or f"; there are {', '.join(known)}"
        raise errors.ArgumentError(
            "encoder", encoder, f"is not a model of tf.keras.applications{near}."
        )
    function = getattr(keras.applications, name)
    preprocess_input = next(
        (
            module.preprocess_input
            for _, module in inspect.getmembers(keras.applications, inspect.ismodule)
            if hasattr(module, name)
        ),
        _unchanged,  # Models without a module, such as MobileNetV3, preprocess images themselves.
    )

    def preprocess(images: tf.Tensor) -> tf.Tensor:
        return preprocess_input(255 * images)

    return functools.partial(function, include_top=False, weights=None), preprocess


def _unchanged(images: tf.Tensor) -> tf.Tensor:
    return images


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
    """Makes this dtype policy the default of new layers."""
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(policy)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


def _replace_layers(
    original: keras.Model, layer_maker: layers.LayerMaker, encoder: str, shape: tuple[int, ...]
) -> keras.Model:
    """Returns the network with `BatchNorm` layers and without random layers.

    All other layers are those of the original network.
    """
    replaced: dict[int, keras.layers.Layer] = {}  # A layer may be used more than once.
    norms: list[tuple[keras.layers.Layer, keras.layers.Layer]] = []  # (original, replacement)

    def replace(layer: keras.layers.Layer) -> keras.layers.Layer:
        if id(layer) not in replaced:
            replaced[id(layer)] = _replace_layer(layer, layer_maker, replace)
            if isinstance(replaced[id(layer)], batch_norm.BatchNorm):
                norms.append((layer, replaced[id(layer)]))
        return replaced[id(layer)]

    original(tf.zeros([1, *shape]))  # Creates the variables of a network not yet built.
    network = replace(original)
    network(tf.zeros([1, *shape]))
    if tf.executing_eagerly():  # Networks in a graph are measured only, and hold no values.
        for norm, replacement in norms:
            replacement.set_weights(norm.get_weights())
    for layer in keras_api.layers_in(network):
        if isinstance(layer, keras_api.BATCH_NORMS) or keras_api.is_random(layer):
            raise errors.ArgumentError(
                "encoder",
                encoder,
                f"contains a {type(layer).__name__} ({layer.name}) that cannot be replaced by one "
                "that works on several replicas and in chunks; build the network by the functional "
                "interface or tf.keras.Sequential, channels last.",
            )
    return network


def _replace_layer(
    layer: keras.layers.Layer,
    layer_maker: layers.LayerMaker,
    replace: Callable[[keras.layers.Layer], keras.layers.Layer],
) -> keras.layers.Layer:
    # Networks of the functional interface or Sequential can be cloned with other layers.
    if isinstance(layer, keras.Sequential) or keras_api.is_functional(layer):
        return keras_api.clone(layer, replace)
    if isinstance(layer, keras_api.BATCH_NORMS) and _over_channels(layer):
        norm = layer_maker.norm(
            epsilon=layer.epsilon, center=layer.center, scale=layer.scale, name=layer.name
        )
        norm.trainable = layer.trainable
        return norm
    if keras_api.is_random(layer):
        return keras.layers.Activation("linear", name=layer.name, dtype=layer_maker.policy)
    return layer


def _over_channels(norm: keras.layers.Layer) -> bool:
    axes = [norm.axis] if isinstance(norm.axis, int) else list(norm.axis)
    return axes in ([-1], [norm.input_spec.ndim - 1])
