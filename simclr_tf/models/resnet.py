"""ResNet encoders: 18 to 200 of ImageNet, and the small family of CIFAR.

Both are post-activation residual networks (He et al. 2016). The ImageNet family follows the
published SimCLR models: stride on the 3x3 convolution of a bottleneck, a projection shortcut at
the start of each group, no bias in any convolution, the last gamma of a residual branch zero.
He et al. pad shortcuts with zeros in the CIFAR family; here they project there too, because with
zero gammas a padded network starts as three quarters of dead features and learns slowly.
"""

from __future__ import annotations

import dataclasses
import itertools

import tensorflow as tf

from simclr_tf import errors
from simclr_tf.models import batch_norm

# Blocks in each of the four groups of the ImageNet family.
_IMAGENET = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
    200: ("bottleneck", (3, 24, 36, 3)),
}
# The CIFAR family has three groups of n basic blocks, 6n + 2 layers (sec. 4.2).
_CIFAR = (8, 14, 20, 32, 44, 56, 110)

DEPTHS = tuple(sorted((*_IMAGENET, *_CIFAR)))
STEMS = ("small", "imagenet")


def check_depth(depth: int) -> None:
    """Raises UserError unless a network of this many layers is known."""
    if depth not in DEPTHS:
        raise errors.UserError(
            f"There is no ResNet-{depth} here; --resnet_depth takes one of "
            f"{', '.join(map(str, _IMAGENET))} (ImageNet family) or "
            f"{', '.join(map(str, _CIFAR))} (CIFAR family, a tenth of the size)."
        )


def num_groups(depth: int) -> int:
    """Returns how many block groups a network has: 4, or 3 in the CIFAR family."""
    return 3 if depth in _CIFAR else 4


@dataclasses.dataclass
class LayerMaker:
    """Makes the layers of one network, with what they all share.

    Initial weights are a function of the seed and the order of making, so the same network
    starts the same whatever else the program has drawn.

    Attributes:
        policy: dtype of the arithmetic; variables are float32.
        seed: of the initial weights.
        bn_momentum: see `batch_norm.BatchNorm`.
        bn_synchronized: see `batch_norm.BatchNorm`.
    """

    policy: tf.keras.mixed_precision.Policy
    seed: int
    bn_momentum: float = 0.9
    bn_synchronized: bool = True
    _count: itertools.count = dataclasses.field(default_factory=itertools.count)

    def _next_seed(self) -> int:
        return (self.seed * 1_000_003 + next(self._count)) % (2**31 - 1)

    def conv(self, filters: int, size: int, strides: int = 1) -> tf.keras.layers.Layer:
        """Returns a convolution without bias, padded alike on both sides when it strides."""
        kernel = tf.keras.initializers.VarianceScaling(seed=self._next_seed())
        same = strides == 1 or size == 1
        conv = tf.keras.layers.Conv2D(
            filters,
            size,
            strides,
            padding="same" if same else "valid",
            use_bias=False,
            kernel_initializer=kernel,
            dtype=self.policy,
        )
        if same:
            return conv
        pad = tf.keras.layers.ZeroPadding2D((size - 1) // 2, dtype=self.policy)
        return tf.keras.Sequential([pad, conv])

    def dense(
        self, units: int, *, use_bias: bool, dtype: str | None = None
    ) -> tf.keras.layers.Layer:
        """Returns a dense layer that starts from N(0, 0.01), as the published heads do."""
        kernel = tf.keras.initializers.RandomNormal(stddev=0.01, seed=self._next_seed())
        return tf.keras.layers.Dense(
            units, use_bias=use_bias, kernel_initializer=kernel, dtype=dtype or self.policy
        )

    def norm(self, *, zero_gamma: bool = False, center: bool = True) -> batch_norm.BatchNorm:
        """Returns a batch normalisation."""
        return batch_norm.BatchNorm(
            momentum=self.bn_momentum,
            center=center,
            zero_gamma=zero_gamma,
            synchronized=self.bn_synchronized,
            dtype=self.policy,
        )


class Block(tf.keras.layers.Layer):
    """A residual block: two 3x3 convolutions (basic), or 1x1, 3x3, 1x1 (bottleneck)."""

    def __init__(
        self,
        make: LayerMaker,
        *,
        kind: str,
        filters: int,
        strides: int,
        projection: bool,
        name: str,
    ) -> None:
        super().__init__(name=name, dtype=make.policy)
        expansion = 4 if kind == "bottleneck" else 1
        self.projection = make.conv(filters * expansion, 1, strides) if projection else None
        self.projection_norm = make.norm() if projection else None
        if kind == "bottleneck":
            shapes = [(filters, 1, 1), (filters, 3, strides), (4 * filters, 1, 1)]
        else:
            shapes = [(filters, 3, strides), (filters, 3, 1)]
        self.convs = [make.conv(*shape) for shape in shapes]
        self.norms = [make.norm() for _ in shapes[1:]] + [make.norm(zero_gamma=True)]
        self.filters, self.strides = filters * expansion, strides

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Maps (n, h, w, c) to (n, h / strides, w / strides, filters)."""
        shortcut = self._shortcut(x, training)
        for conv, norm in zip(self.convs[:-1], self.norms[:-1]):
            x = tf.nn.relu(norm(conv(x), training=training))
        x = self.norms[-1](self.convs[-1](x), training=training)
        return tf.nn.relu(x + shortcut)

    def _shortcut(self, x: tf.Tensor, training: bool) -> tf.Tensor:
        if self.projection is not None and self.projection_norm is not None:
            return self.projection_norm(self.projection(x), training=training)
        return x


class ResNet(tf.keras.Model):
    """An encoder: images to features, with the feature maps on the way by name.

    Frozen groups (see `freeze`) run in inference mode: their batch norms neither use nor move
    batch statistics, so that "frozen" means that not a bit changes.
    """

    def __init__(self, make: LayerMaker, *, depth: int, width_multiplier: int, stem: str) -> None:
        """Makes the network.

        Args:
            make: maker of its layers.
            depth: number of layers, one of DEPTHS.
            width_multiplier: multiplies the channels everywhere, 1 or more.
            stem: "imagenet" (7x7 convolution with stride 2, max-pool) or "small" (3x3
                convolution, nothing else), for images that cannot afford to lose resolution.

        Raises:
            UserError: if the depth, width or stem does not exist.
        """
        super().__init__(name="encoder")
        check_depth(depth)
        if width_multiplier < 1:
            raise errors.UserError(f"--width_multiplier must be 1 or more, got {width_multiplier}.")
        if stem not in STEMS:
            raise errors.UserError(f"--stem must be one of {', '.join(STEMS)}, got {stem!r}.")
        self.frozen_groups = -1
        cifar = depth in _CIFAR
        kind, blocks = ("basic", 3 * ((depth - 2) // 6,)) if cifar else _IMAGENET[depth]
        base = (16 if cifar else 64) * width_multiplier
        self.stem_conv = make.conv(base, 3) if stem == "small" else make.conv(base, 7, 2)
        self.stem_norm = make.norm()
        self.max_pool = stem == "imagenet"
        self.groups: list[list[Block]] = [
            [
                Block(
                    make,
                    kind=kind,
                    filters=base * 2**group,
                    strides=2 if group and not unit else 1,
                    projection=not unit,
                    name=f"group{group + 1}_block{unit + 1}",
                )
                for unit in range(count)
            ]
            for group, count in enumerate(blocks)
        ]
        self.num_features = self.groups[-1][-1].filters

    def freeze(self, after_block: int) -> None:
        """Freezes the stem and groups 1 to `after_block`; -1 freezes nothing."""
        self.frozen_groups = after_block
        for layer in (self.stem_conv, self.stem_norm):
            layer.trainable = after_block < 0
        for index, blocks in enumerate(self.groups, 1):
            for block in blocks:
                block.trainable = index > after_block

    def call(self, images: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """Encodes images.

        Args:
            images: (n, h, w, 3) in [0, 1].
            training: normalises by batch statistics, except in frozen groups.

        Returns:
            "features" (n, f) float32, the mean of the last map over space (h of the paper); and
            the maps "initial_conv", "initial_max_pool" (with the ImageNet stem) and
            "block_group1" ... in the compute dtype.
        """
        live = training and self.frozen_groups < 0
        maps = {}
        x = tf.nn.relu(self.stem_norm(self.stem_conv(images), training=live))
        maps["initial_conv"] = x
        if self.max_pool:
            x = tf.nn.max_pool2d(x, 3, 2, "SAME")
            maps["initial_max_pool"] = x
        for index, blocks in enumerate(self.groups, 1):
            if index == self.frozen_groups + 1:
                x = tf.stop_gradient(x)  # Nothing below needs a gradient: do not compute it.
            live = training and index > self.frozen_groups
            for block in blocks:
                x = block(x, training=live)
            maps[f"block_group{index}"] = x
        features = tf.reduce_mean(tf.cast(x, tf.float32), [1, 2])  # (n, f)
        if self.frozen_groups >= len(self.groups):
            features = tf.stop_gradient(features)
        return {"features": features, **maps}
