"""The networks that google-research/simclr can build: the settings that determine their weights."""

from __future__ import annotations

import dataclasses

from simclr_tf.models import heads, resnet

# Kind of block and number of blocks per group, for the depths of the reference.
BLOCKS = resnet.IMAGENET


@dataclasses.dataclass(frozen=True)
class Network:
    """The settings that determine the names and shapes of the weights.

    Attributes:
        depth: number of layers, one of BLOCKS.
        width: multiplier of the channels.
        small_stem: whether the stem is a 3x3 convolution that keeps the resolution.
        sk_ratio: ratio of selective kernels; above 0 also enables the stem and the shortcuts of
            ResNet-D.
        se_ratio: ratio of squeeze-excitation, 0 for none.
        head: kind of the projection head: "none", "linear" or "nonlinear".
        head_layers: number of layers of a nonlinear head.
        out_dim: width of the projection.
        classes: number of classes of the linear head, or None without one.
        stage: stage of the projection head that is the input of the linear head: 0 for the
            features, -1 for the last.
    """

    depth: int
    width: int = 1
    small_stem: bool = False
    sk_ratio: float = 0.0
    se_ratio: float = 0.0
    head: str = "nonlinear"
    head_layers: int = 3
    out_dim: int = 128
    classes: int | None = None
    stage: int = 0

    @property
    def bottleneck(self) -> bool:
        """Whether blocks are bottlenecks, the only blocks that can have selective kernels."""
        return BLOCKS[self.depth][0] == "bottleneck"

    @property
    def num_head_layers(self) -> int:
        """Number of layers of the projection head."""
        return heads.layer_count(self.head, self.head_layers)

    @property
    def num_features(self) -> int:
        """Width of the features."""
        return 512 * self.width * (4 if self.bottleneck else 1)
