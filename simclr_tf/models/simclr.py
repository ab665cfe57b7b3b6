"""The whole network, and the description of it that is stored beside its weights."""

from __future__ import annotations

import dataclasses
from typing import Union

import tensorflow as tf

from simclr_tf.keras_api import keras
from simclr_tf.models import batch_norm, heads, keras_encoders, layers, resnet


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Everything needed to build a network again and to feed it the images it knows."""

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
    # Absent from what older runs stored.
    sk_ratio: float = 0.0
    se_ratio: float = 0.0
    # Later than the first runs, whose description does not have them.
    proj_head_bn: bool = True
    normalize_features: bool = False
    encoder: str = keras_encoders.RESNET

    @property
    def encoder_name(self) -> str:
        """What a person calls the encoder, such as ResNet-50."""
        if self.encoder == keras_encoders.RESNET:
            return f"ResNet-{self.resnet_depth}"
        return self.encoder

    @property
    def num_classes(self) -> int | None:
        """How many classes the linear head tells apart; None without a linear head."""
        return None if self.class_names is None else len(self.class_names)


def unnamed_classes(count: int) -> tuple[str, ...]:
    """Returns what stands for the names of classes that nobody told."""
    return tuple(f"class {index}" for index in range(count))


def same_classes(one: tuple[str, ...] | None, other: tuple[str, ...] | None) -> bool:
    """Tells whether linear heads tell the same classes apart; unnamed ones by their number."""
    if one is None or other is None:
        return one is other
    unnamed = unnamed_classes(len(one))
    return one == other or (len(one) == len(other) and unnamed in (one, other))


# Fields that a person chooses by flags of the same names.
ARCHITECTURE_FLAGS = tuple(
    field.name for field in dataclasses.fields(Architecture) if field.name != "class_names"
)


def policy_of(mixed_precision: str) -> keras.mixed_precision.Policy:
    """Returns the Keras dtype policy: "none", "bfloat16" or "float16" arithmetic."""
    name = "float32" if mixed_precision == "none" else f"mixed_{mixed_precision}"
    return keras.mixed_precision.Policy(name)


_NORMS = (batch_norm.BatchNorm, keras.layers.LayerNormalization)
Encoder = Union[resnet.ResNet, keras_encoders.KerasEncoder]


def make_encoder(
    architecture: Architecture, make: layers.LayerMaker | None = None, *, recompute: bool = False
) -> Encoder:
    """Returns the encoder of an architecture; its first call makes what variables are missing.

    Args:
        architecture: which; its heads are of no concern here.
        make: maker of its layers; None makes them in float32, for one replica.
        recompute: see `resnet.ResNet`; other encoders cannot.

    Raises:
        UserError: if there is no such encoder.
    """
    make = make or layers.LayerMaker(policy_of("none"), seed=0)
    if architecture.encoder != keras_encoders.RESNET:
        return keras_encoders.KerasEncoder(
            make, encoder=architecture.encoder, image_size=architecture.image_size
        )
    return resnet.ResNet(
        make,
        depth=architecture.resnet_depth,
        width_multiplier=architecture.width_multiplier,
        stem=architecture.stem,
        sk_ratio=architecture.sk_ratio,
        se_ratio=architecture.se_ratio,
        recompute=recompute,
    )


class SimCLR(keras.Model):
    """Encoder, projection head and linear head; outputs come back under names."""

    def __init__(
        self,
        architecture: Architecture,
        *,
        seed: int,
        mixed_precision: str = "none",
        global_bn: bool = True,
        recompute: bool = False,
    ) -> None:
        """Makes the network and its variables.

        Args:
            architecture: what to build. Without class names there is no linear head.
            seed: of the initial weights.
            mixed_precision: see `policy_of`.
            global_bn: takes batch-norm statistics over all replicas.
            recompute: trades time for memory, see `make_encoder`.
        """
        super().__init__(name="simclr")
        self.architecture = architecture
        make = layers.LayerMaker(
            policy_of(mixed_precision),
            seed,
            bn_momentum=architecture.batch_norm_decay,
            bn_synchronized=global_bn,
        )
        self.encoder = make_encoder(architecture, make, recompute=recompute)
        self.projection_head = heads.ProjectionHead(
            make,
            mode=architecture.proj_head_mode,
            num_layers=architecture.num_proj_layers,
            width=self.encoder.num_features,
            out_dim=architecture.proj_out_dim,
            batch_norm=architecture.proj_head_bn,
        )
        classes = architecture.num_classes
        self.linear_head = heads.LinearHead(make, num_classes=classes) if classes else None
        side = architecture.image_size
        self(tf.zeros([1, side, side, 3]))  # Makes the variables.

    @property
    def needs_autograph(self) -> bool:
        """Whether AutoGraph must be on in a `tf.function` that runs the network.

        The layers of a user's encoder may hold Python control flow on tensors, which Keras
        converts only where the `tf.function` around it allows conversion. Ours hold none.
        """
        return keras_encoders.is_users_own(self.architecture.encoder)

    def represent(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the features (n, f), float32, as both heads read them.

        With `normalize_features` they have length 1, as SupCon's (sec. 3.1).
        """
        features = self.encoder(images, training=training)["features"]
        if self.architecture.normalize_features:
            features = tf.math.l2_normalize(features, -1)
        return features

    def call(
        self, images: tf.Tensor, training: bool = False, stop_gradient: bool = True
    ) -> dict[str, tf.Tensor]:
        """Runs everything.

        Args:
            images: (n, h, w, 3) in [0, 1].
            training: normalises by batch statistics where nothing is frozen.
            stop_gradient: keeps the linear head from teaching the encoder, which holds
                in pretraining; fine-tuning sets it to False.

        Returns:
            "features" (n, f), "projection" (n, d), both float32, and with a linear head
            "logits" (n, c). The linear head reads the features, or the stage of the projection
            head that `ft_proj_selector` names (SimCLRv2).
        """
        features = self.represent(images, training)
        stages = self.projection_head(features, training=training)
        outputs = {"features": features, "projection": stages[-1]}
        if self.linear_head is not None:
            selected = stages[self.projection_head.stage(self.architecture.ft_proj_selector)]
            outputs["logits"] = self.linear_head(
                tf.stop_gradient(selected) if stop_gradient else selected
            )
        return outputs

    def classify(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns logits (n, c), running only the layers that they depend on."""
        assert self.linear_head is not None, "classify needs a linear head"
        return self._judge(self.represent(images, training), training)

    def _judge(self, features: tf.Tensor, training: bool = False) -> tf.Tensor:
        stage = self.projection_head.stage(self.architecture.ft_proj_selector)
        stages = self.projection_head(features, training=training, num_layers=stage)
        assert self.linear_head is not None
        return self.linear_head(stages[-1])

    def infer(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns "features" (n, f) and, with a linear head, "logits" (n, c), as if for good.

        Runs in inference mode, and only the layers that these depend on.
        """
        features = self.represent(images)
        if self.linear_head is None:
            return {"features": features}
        return {"features": features, "logits": self._judge(features)}

    def inference_layers(self) -> list[keras.layers.Layer]:
        """Returns the layers that `infer` and `classify` run, from the images on."""
        if self.linear_head is None:
            return [self.encoder]
        stage = self.projection_head.stage(self.architecture.ft_proj_selector)
        used = self.projection_head.denses[:stage] + self.projection_head.norms[:stage]
        return [self.encoder, *used, self.linear_head]

    def classifier_variables(self) -> list[tf.Variable]:
        """Returns the trainable variables on which `classify` depends."""
        assert self.linear_head is not None, "classify needs a linear head"
        return [v for layer in self.inference_layers() for v in layer.trainable_variables]

    def plain_variables(self) -> list[tf.Variable]:
        """Returns what LARS neither decays nor adapts: batch norm, biases, the linear head."""
        linear = [] if self.linear_head is None else self.linear_head.trainable_variables
        small = [v for v in self.trainable_variables if len(v.shape) <= 1]
        return list({v.ref(): v for v in (*small, *linear)}.values())

    def norm_variables(self) -> list[tf.Variable]:
        """Returns the learned scales and offsets of the batch norms, and of layer norms."""
        norms = {
            variable.ref()
            for layer in self.submodules
            if isinstance(layer, _NORMS)
            for variable in layer.trainable_variables
        }
        return [v for v in self.trainable_variables if v.ref() in norms]
