"""The networks that google-research/simclr can build, as far as their weights depend on them."""

from __future__ import annotations

import dataclasses

# Kind of block and blocks per group, for the depths that the reference knows.
BLOCKS = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
    200: ("bottleneck", (3, 24, 36, 3)),
}
# The narrowest middle layer of selective kernels.
_SK_LEAST = 32


@dataclasses.dataclass(frozen=True)
class Network:
    """What decides the names and shapes of the weights.

    Attributes:
        depth: one of BLOCKS.
        width: multiplies the channels.
        small_stem: a 3x3 convolution that keeps the resolution.
        sk_ratio: of selective kernels, above 0 with the stem and the shortcuts of ResNet-D.
        se_ratio: of squeeze-excitation, 0 for none.
        head: "none", "linear" or "nonlinear".
        head_layers: of a nonlinear head.
        out_dim: width of the projection.
        classes: of the linear head, or None without one.
        stage: of the projection head, which the linear head reads: 0 the features, -1 the last.
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
        """Whether blocks are bottlenecks, the only ones whose kernels can be selective."""
        return BLOCKS[self.depth][0] == "bottleneck"

    @property
    def num_head_layers(self) -> int:
        """Layers of the projection head."""
        return {"none": 0, "linear": 1, "nonlinear": self.head_layers}[self.head]

    @property
    def num_features(self) -> int:
        """Width of the features."""
        return 512 * self.width * (4 if self.bottleneck else 1)


def squeezed(filters: int, ratio: float) -> int:
    """Returns the width of the middle layer of squeeze-excitation."""
    return max(1, int(filters * ratio))


def selected(filters: int, ratio: float) -> int:
    """Returns the width of the middle layer of selective kernels."""
    return max(_SK_LEAST, int(filters * ratio))
