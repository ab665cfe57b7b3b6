"""The whole network, and its architecture as it is stored beside the weights."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from simclr_tf import keras_api, pixel_format
from simclr_tf.keras_api import keras
from simclr_tf.models import batch_norm, heads, keras_encoders, layers, resnet


@dataclasses.dataclass(frozen=True)
class Architecture:
    """All settings needed to build a network again and to prepare images and classes for it."""

    resnet_depth: int
    width_multiplier: int
    stem: str
    image_size: int
    proj_head_mode: str
    num_proj_layers: int
    proj_out_dim: int
    ft_proj_selector: int
    batch_norm_decay: float
    class_names: tuple[str, ...] | None
    # Older runs did not store these.
    sk_ratio: float = 0.0
    se_ratio: float = 0.0
    proj_head_bn: bool = True
    normalize_features: bool = False
    encoder: str = keras_encoders.RESNET
    pixels: pixel_format.PixelFormat = pixel_format.RGB
    several_labels: bool = False

    def without_head(self) -> Architecture:
        """Returns the architecture without a linear head."""
        return dataclasses.replace(self, class_names=None, several_labels=False)

    @property
    def encoder_name(self) -> str:
        """Name of the encoder to print, such as ResNet-50."""
        if self.encoder == keras_encoders.RESNET:
            return f"ResNet-{self.resnet_depth}"
        return self.encoder

    @property
    def num_classes(self) -> int | None:
        """Number of classes of the linear head; None without a linear head."""
        return None if self.class_names is None else len(self.class_names)


def _standardized(images: tf.Tensor, pixels: pixel_format.PixelFormat) -> tf.Tensor:
    """Returns images (n, h, w, c) with the mean 0 and the deviation 1 of each channel."""
    if not pixels.is_standardized:
        return images
    mean, deviation = tf.constant(pixels.mean), tf.constant(pixels.deviation)
    return (tf.cast(images, tf.float32) - mean) / deviation


def placeholder_class_names(count: int) -> tuple[str, ...]:
    """Returns placeholder names of classes whose names are not known."""
    return tuple(f"class {index}" for index in range(count))


def same_classes(one: tuple[str, ...] | None, other: tuple[str, ...] | None) -> bool:
    """Returns whether two linear heads have the same classes.

    If one of them has placeholder names, only the numbers of classes are compared.

    Args:
        one: class names of a head; None if there is no linear head.
        other: class names of the other head.
    """
    if one is None or other is None:
        return one is other
    placeholders = placeholder_class_names(len(one))
    return one == other or (len(one) == len(other) and placeholders in (one, other))


# Fields that settings of the same names determine; the data determines the others.
ARCHITECTURE_SETTINGS = tuple(
    field.name
    for field in dataclasses.fields(Architecture)
    if field.name not in ("class_names", "pixels", "several_labels")
)


def dtype_policy(mixed_precision: str) -> keras.mixed_precision.Policy:
    """Returns the Keras dtype policy for "none", "bfloat16" or "float16"."""
    name = "float32" if mixed_precision == "none" else f"mixed_{mixed_precision}"
    return keras.mixed_precision.Policy(name)


_NORMS = (batch_norm.BatchNorm, keras.layers.LayerNormalization)
Encoder = resnet.ResNet | keras_encoders.KerasEncoder


def make_encoder(
    architecture: Architecture,
    layer_maker: layers.LayerMaker | None = None,
    *,
    recompute: bool = False,
) -> Encoder:
    """Returns the encoder of an architecture; its first call creates its variables.

    Args:
        architecture: the architecture; settings of its heads are ignored.
        layer_maker: maker of the layers; None creates them in float32, with seed 0.
        recompute: see `resnet.ResNet`; other encoders ignore it.

    Raises:
        ArgumentError: if there is no such encoder.
    """
    layer_maker = layer_maker or layers.LayerMaker(dtype_policy("none"), seed=0)
    if architecture.encoder != keras_encoders.RESNET:
        return keras_encoders.KerasEncoder(
            layer_maker,
            encoder=architecture.encoder,
            image_size=architecture.image_size,
            channels=architecture.pixels.channels,
        )
    return resnet.ResNet(
        layer_maker,
        depth=architecture.resnet_depth,
        width_multiplier=architecture.width_multiplier,
        stem=architecture.stem,
        sk_ratio=architecture.sk_ratio,
        se_ratio=architecture.se_ratio,
        recompute=recompute,
    )


class SimCLR(keras_api.Model):
    """Encoder, projection head and linear head."""

    def __init__(
        self,
        architecture: Architecture,
        *,
        seed: int,
        mixed_precision: str = "none",
        global_bn: bool = True,
        recompute: bool = False,
    ) -> None:
        """Builds the network and creates its variables.

        Args:
            architecture: the architecture. Without class names there is no linear head.
            seed: seed of the initial weights.
            mixed_precision: see `dtype_policy`.
            global_bn: whether to compute batch-norm statistics over all replicas.
            recompute: whether to save memory at the cost of time, see `make_encoder`.

        Raises:
            ArgumentError: if there is no such encoder.
        """
        super().__init__(name="simclr")
        self.architecture = architecture
        layer_maker = layers.LayerMaker(
            dtype_policy(mixed_precision),
            seed,
            bn_momentum=architecture.batch_norm_decay,
            bn_synchronized=global_bn,
        )
        self.encoder = make_encoder(architecture, layer_maker, recompute=recompute)
        self.projection_head = heads.ProjectionHead(
            layer_maker,
            mode=architecture.proj_head_mode,
            num_layers=architecture.num_proj_layers,
            width=self.encoder.num_features,
            out_dim=architecture.proj_out_dim,
            batch_norm=architecture.proj_head_bn,
        )
        classes = architecture.num_classes
        self.linear_head = heads.LinearHead(layer_maker, num_classes=classes) if classes else None
        side = architecture.image_size
        self(tf.zeros([1, side, side, architecture.pixels.channels]))  # Creates the variables.

    @property
    def needs_autograph(self) -> bool:
        """Whether AutoGraph must be on in a `tf.function` that runs the network.

        The layers of a user's encoder may contain Python control flow on tensors, which Keras
        converts only if AutoGraph is on in the outer `tf.function`. All other layers contain none.
        """
        return keras_encoders.is_users_own(self.architecture.encoder)

    def encode(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the features (n, f) float32 that are the input of both heads.

        Images from 0 to 1 are standardized first, if their format says so. With
        `normalize_features` the features have length 1, as in SupCon (sec. 3.1).
        """
        images = _standardized(images, self.architecture.pixels)
        features = self.encoder(images, training=training)["features"]
        if self.architecture.normalize_features:
            features = tf.math.l2_normalize(features, -1)
        return features

    def call(self, images: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """Runs encoder and heads, as for pretraining.

        Args:
            images: (n, h, w, c) in [0, 1].
            training: whether to normalise by batch statistics, except in frozen layers.

        Returns:
            "features" (n, f), "projection" (n, d), both float32, and with a linear head
            "logits" (n, c). The input of the linear head is the features, or the stage of the
            projection head that `ft_proj_selector` selects (SimCLRv2); no gradient flows through
            it, so the linear head does not train the encoder.
        """
        features = self.encode(images, training)
        stages = self.projection_head(features, training=training)
        outputs = {"features": features, "projection": stages[-1]}
        if self.linear_head is not None:
            selected = stages[self.projection_head.stage(self.architecture.ft_proj_selector)]
            outputs["logits"] = self.linear_head(tf.stop_gradient(selected))
        return outputs

    def classify(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns logits (n, c), running only the layers that they depend on.

        Gradients flow to all of these layers, as for fine-tuning.
        """
        assert self.linear_head is not None, "classify needs a linear head"
        return self._logits(self.encode(images, training), training)

    def _logits(self, features: tf.Tensor, training: bool = False) -> tf.Tensor:
        stage = self.projection_head.stage(self.architecture.ft_proj_selector)
        stages = self.projection_head(features, training=training, num_layers=stage)
        assert self.linear_head is not None
        return self.linear_head(stages[-1])

    def infer(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns "features" (n, f) and, with a linear head, "logits" (n, c), in inference mode.

        Runs only the layers that these depend on.
        """
        features = self.encode(images)
        if self.linear_head is None:
            return {"features": features}
        return {"features": features, "logits": self._logits(features)}

    def inference_layers(self) -> list[keras.layers.Layer]:
        """Returns the layers that `infer` and `classify` run, in their order."""
        if self.linear_head is None:
            return [self.encoder]
        stage = self.projection_head.stage(self.architecture.ft_proj_selector)
        used = self.projection_head.denses[:stage] + self.projection_head.norms[:stage]
        return [self.encoder, *used, self.linear_head]

    def classifier_variables(self) -> list[tf.Variable]:
        """Returns the trainable variables on which `classify` depends."""
        assert self.linear_head is not None, "classify needs a linear head"
        layers = self.inference_layers()
        return [v for layer in layers for v in keras_api.trainable_variables(layer)]

    def lars_excluded_variables(self) -> list[tf.Variable]:
        """Returns the variables that LARS updates without weight decay and without a trust ratio.

        These are those of batch norms and of the linear head, and biases.
        """
        linear = [] if self.linear_head is None else self.linear_head.trainable_variables
        small = [v for v in self.trainable_variables if len(v.shape) <= 1]
        return list({v.ref(): v for v in (*small, *linear)}.values())

    @property
    def has_zero_gammas(self) -> bool:
        """Whether the initial scale of some batch norms is 0, as in the blocks of a ResNet."""
        return bool(self._zero_gammas())

    def set_unit_gammas(self) -> None:
        """Sets the scales whose initial value is 0 to 1, the initial value of the others."""
        for gamma in self._zero_gammas():
            gamma.assign(tf.ones_like(gamma))

    def _zero_gammas(self) -> list[tf.Variable]:
        return [
            keras_api.raw(layer.gamma)
            for layer in keras_api.layers_in(self)
            if isinstance(layer, batch_norm.BatchNorm) and layer.zero_gamma
        ]

    def norm_variables(self) -> list[tf.Variable]:
        """Returns the learned scales and offsets of batch norms and layer norms."""
        norms = {
            variable.ref()
            for layer in keras_api.layers_in(self)
            if isinstance(layer, _NORMS)
            for variable in keras_api.trainable_variables(layer)
        }
        return [v for v in self.trainable_variables if v.ref() in norms]
