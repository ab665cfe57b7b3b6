"""Creates the layers of networks, with initial weights that are functions of the seed."""

from __future__ import annotations

import dataclasses
import itertools

from simclr_tf.keras_api import keras
from simclr_tf.models import batch_norm


@dataclasses.dataclass
class LayerMaker:
    """Creates the layers of one network, with the settings that they have in common.

    Initial weights are a function of the seed and of the order in which layers are created, so
    they do not depend on other random numbers that the program draws.

    Attributes:
        policy: dtype of the arithmetic; variables are float32.
        seed: seed of the initial weights.
        bn_momentum: see `batch_norm.BatchNorm`.
        bn_synchronized: see `batch_norm.BatchNorm`.
    """

    policy: keras.mixed_precision.Policy
    seed: int
    bn_momentum: float = 0.9
    bn_synchronized: bool = True
    _count: itertools.count = dataclasses.field(default_factory=itertools.count)

    def _next_seed(self) -> int:
        return (self.seed * 1_000_003 + next(self._count)) % (2**31 - 1)

    def conv(
        self, filters: int, size: int, strides: int = 1, *, use_bias: bool = False
    ) -> keras.layers.Layer:
        """Returns a convolution, padded equally on both sides if its stride is above 1."""
        kernel = keras.initializers.VarianceScaling(seed=self._next_seed())
        same = strides == 1 or size == 1
        conv = keras.layers.Conv2D(
            filters,
            size,
            strides,
            padding="same" if same else "valid",
            use_bias=use_bias,
            kernel_initializer=kernel,
            dtype=self.policy,
        )
        if same:
            return conv
        pad = keras.layers.ZeroPadding2D((size - 1) // 2, dtype=self.policy)
        return keras.Sequential([pad, conv])

    def dense(self, units: int, *, use_bias: bool, dtype: str | None = None) -> keras.layers.Layer:
        """Returns a dense layer with weights from N(0, 0.01), as in the published heads."""
        kernel = keras.initializers.RandomNormal(stddev=0.01, seed=self._next_seed())
        return keras.layers.Dense(
            units, use_bias=use_bias, kernel_initializer=kernel, dtype=dtype or self.policy
        )

    def norm(
        self,
        *,
        zero_gamma: bool = False,
        center: bool = True,
        scale: bool = True,
        epsilon: float = batch_norm.EPSILON,
        name: str | None = None,
    ) -> batch_norm.BatchNorm:
        """Returns a batch normalisation."""
        return batch_norm.BatchNorm(
            momentum=self.bn_momentum,
            epsilon=epsilon,
            center=center,
            scale=scale,
            zero_gamma=zero_gamma,
            synchronized=self.bn_synchronized,
            dtype=self.policy,
            name=name,
        )
