"""What reads the images of a data set, of whatever form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import tensorflow as tf

from simclr_tf.data import folder


class Reader(Protocol):
    """Reads slices of splits; see the methods of `sources.Source`."""

    split_infos: Mapping[str, Any]  # name of a split -> tfds.core.SplitInfo

    def __hash__(self) -> int:
        """Readers are compared by identity."""

    def examples(
        self,
        slices: Sequence[folder.Slice],
        *,
        order_seed: tf.Tensor | None = None,
        excluded: Sequence[str] = (),
    ) -> tf.data.Dataset:
        """Streams the examples of the slices once, without those excluded."""

    def positions(self, slices: Sequence[folder.Slice], order_seed: tf.Tensor) -> tf.data.Dataset:
        """Streams the positions () int64 in the stored order of all examples of the slices.

        They come in the order in which `examples` has the examples, those excluded among them.
        """

    def num_bytes(self, slices: Sequence[folder.Slice]) -> int:
        """Estimates the bytes of the encoded images of the slices."""

    def random_access(
        self, slices: Sequence[folder.Slice], *, excluded: Sequence[str] = ()
    ) -> folder.RandomAccess | None:
        """Returns the examples of the slices; None where they can only be streamed."""

    def example_name(self, slices: Sequence[folder.Slice], index: int) -> str:
        """Returns the name of an example, counted in the stored order of the slices."""

    def example_names(self, slices: Sequence[folder.Slice]) -> Iterable[str]:
        """Yields the names of all examples of the slices, in their stored order."""
