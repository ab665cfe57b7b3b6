"""ResNet encoders: the ImageNet family of 18 to 200 layers, and the small CIFAR family.

Both are post-activation residual networks (He et al. 2016). The ImageNet family follows the
published SimCLR models: stride in the 3x3 convolution of a bottleneck, a projection shortcut at
the start of each group, no bias in any convolution, and an initial gamma of zero at the end of each
residual branch. In the CIFAR family, He et al. pad shortcuts with zeros. Here shortcuts are
projections in this family too: with zero gammas, three quarters of the features of a padded network
are initially zero, and it learns slowly.
"""

from __future__ import annotations

import tensorflow as tf

from simclr_tf import errors, keras_api
from simclr_tf.models import channel_attention, layers, resnet_d
from simclr_tf.models import recompute as recompute_lib

# Kind of block and number of blocks in each of the four groups, by depth of the ImageNet family.
IMAGENET = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
    200: ("bottleneck", (3, 24, 36, 3)),
}
# The CIFAR family has three groups of n basic blocks, 6n + 2 layers (sec. 4.2).
_CIFAR = (8, 14, 20, 32, 44, 56, 110)

DEPTHS = tuple(sorted((*IMAGENET, *_CIFAR)))
STEMS = ("small", "imagenet")


def check_depth(depth: int) -> None:
    """Raises ArgumentError unless there is a ResNet with this number of layers."""
    if depth not in DEPTHS:
        raise errors.ArgumentError(
            "depth",
            depth,
            f"must be one of {', '.join(map(str, IMAGENET))} (ImageNet family) or "
            f"{', '.join(map(str, _CIFAR))} (CIFAR family, a tenth of the size).",
        )


class Block(keras_api.Layer):
    """A residual block: two 3x3 convolutions (basic), or 1x1, 3x3, 1x1 (bottleneck).

    With selective kernels, the 3x3 convolution of a bottleneck has twice the channels, for two
    streams to mix. Basic blocks have no selective kernels, as in google-research/simclr: there the
    option changes the stem and the shortcuts only.
    """

    def __init__(
        self,
        layer_maker: layers.LayerMaker,
        *,
        kind: str,
        filters: int,
        strides: int,
        projection: bool,
        sk_ratio: float,
        se_ratio: float,
        name: str,
    ) -> None:
        super().__init__(name=name, dtype=layer_maker.policy)
        width = filters * (4 if kind == "bottleneck" else 1)
        self.pools = sk_ratio > 0  # Shortcuts of ResNet-D pool instead of striding.
        self.projection = (
            layer_maker.conv(width, 1, 1 if self.pools else strides) if projection else None
        )
        self.projection_norm = layer_maker.norm() if projection else None
        if kind == "bottleneck":
            streams = 2 if sk_ratio else 1
            shapes = [(filters, 1, 1), (streams * filters, 3, strides), (width, 1, 1)]
        else:
            shapes = [(filters, 3, strides), (filters, 3, 1)]
        self.convs = [layer_maker.conv(*shape) for shape in shapes]
        self.norms = [layer_maker.norm() for _ in shapes[1:]] + [layer_maker.norm(zero_gamma=True)]
        self.mix = self.excite = None
        if kind == "bottleneck" and sk_ratio:
            self.mix = channel_attention.SelectiveKernel(layer_maker, filters, sk_ratio)
        if se_ratio:
            self.excite = channel_attention.SqueezeExcitation(layer_maker, filters, se_ratio, width)
        self.filters, self.strides = width, strides

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Maps (n, h, w, c) to (n, h / strides, w / strides, filters)."""
        shortcut = self._shortcut(x, training)
        for conv, norm in zip(self.convs[:-1], self.norms[:-1]):
            x = tf.nn.relu(norm(conv(x), training=training))
        if self.mix is not None:
            x = self.mix(x, training=training)
        x = self.norms[-1](self.convs[-1](x), training=training)
        if self.excite is not None:
            x = self.excite(x)
        return tf.nn.relu(x + shortcut)

    def _shortcut(self, x: tf.Tensor, training: bool) -> tf.Tensor:
        if self.projection is not None and self.projection_norm is not None:
            if self.pools:
                x = resnet_d.pooled_shortcut(x, self.strides)
            return self.projection_norm(self.projection(x), training=training)
        return x


class ResNet(keras_api.Model):
    """An encoder that maps images to features and also returns the intermediate feature maps.

    Frozen groups (see `freeze`) run in inference mode: their batch norms neither use batch
    statistics nor update moving averages, so no variable of theirs changes.
    """

    def __init__(
        self,
        layer_maker: layers.LayerMaker,
        *,
        depth: int,
        width_multiplier: int,
        stem: str,
        sk_ratio: float = 0.0,
        se_ratio: float = 0.0,
        recompute: bool = False,
    ) -> None:
        """Creates the network.

        Args:
            layer_maker: maker of the layers.
            depth: number of layers, one of DEPTHS.
            width_multiplier: multiplier of the channels of all layers, 1 or more.
            stem: "imagenet" (7x7 convolution with stride 2, max-pool) or, for small images,
                "small" (3x3 convolution with stride 1, no pooling).
            sk_ratio: ratio of selective kernels (see `channel_attention.SelectiveKernel`); above 0
                also enables the shortcuts of ResNet-D, and its stem if `stem` is "imagenet".
            se_ratio: ratio of squeeze-excitation after each residual branch; 0 for none.
            recompute: whether training keeps only the input and output of each group in memory.

        Raises:
            ArgumentError: if there is no such depth, width or stem.
        """
        super().__init__(name="encoder")
        check_depth(depth)
        if width_multiplier < 1:
            raise errors.ArgumentError("width_multiplier", width_multiplier, "must be 1 or more.")
        if stem not in STEMS:
            raise errors.ArgumentError("stem", stem, f"must be one of {', '.join(STEMS)}.")
        self.frozen_groups = -1
        self.recompute = recompute
        cifar = depth in _CIFAR
        kind, blocks = ("basic", 3 * ((depth - 2) // 6,)) if cifar else IMAGENET[depth]
        base = (16 if cifar else 64) * width_multiplier
        if stem == "small":
            self.stem_conv = layer_maker.conv(base, 3)
        else:
            self.stem_conv = (
                resnet_d.DeepStem(layer_maker, base) if sk_ratio else layer_maker.conv(base, 7, 2)
            )
        self.stem_norm = layer_maker.norm()
        self.max_pool = stem == "imagenet"
        self.groups: list[list[Block]] = [
            [
                Block(
                    layer_maker,
                    kind=kind,
                    filters=base * 2**group,
                    strides=2 if group and not index else 1,
                    projection=not index,
                    sk_ratio=sk_ratio,
                    se_ratio=se_ratio,
                    name=f"group{group + 1}_block{index + 1}",
                )
                for index in range(count)
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
            images: (n, h, w, c) in [0, 1].
            training: whether to normalise by batch statistics, except in frozen groups.

        Returns:
            "features" (n, f) float32, the spatial mean of the last map (h of the paper), and the
            same as "final_avg_pool"; and in the compute dtype, under the names of
            google-research/simclr, the maps "initial_conv" (before batch norm), "initial_max_pool"
            (the output of the stem, even if it does not pool) and "block_group1", ... For a model
            that returns a single map of images of side s, use
            `tf.keras.Model(x, encoder(x)["block_group3"])` with `x = tf.keras.Input([s, s, 3])`.
        """
        use_batch_statistics = training and self.frozen_groups < 0
        x = self.stem_conv(images, training=use_batch_statistics)
        maps = {"initial_conv": x}
        x = tf.nn.relu(self.stem_norm(x, training=use_batch_statistics))
        if self.max_pool:
            x = tf.nn.max_pool2d(x, 3, 2, "SAME")
        maps["initial_max_pool"] = x
        for index, blocks in enumerate(self.groups, 1):
            if index == self.frozen_groups + 1:
                x = tf.stop_gradient(x)  # Frozen layers need no gradient: do not compute it.
            use_batch_statistics = training and index > self.frozen_groups
            x = self._group(blocks, x, use_batch_statistics)
            maps[f"block_group{index}"] = x
        features = tf.reduce_mean(tf.cast(x, tf.float32), [1, 2])  # (n, f)
        if self.frozen_groups >= len(self.groups):
            features = tf.stop_gradient(features)
        return {"features": features, "final_avg_pool": features, **maps}

    def _group(self, blocks: list[Block], x: tf.Tensor, use_batch_statistics: bool) -> tf.Tensor:
        def run(x: tf.Tensor) -> tf.Tensor:
            for block in blocks:
                x = block(x, training=use_batch_statistics)
            return x

        if self.recompute and use_batch_statistics:
            return recompute_lib.recomputed(run)(x)
        return run(x)
