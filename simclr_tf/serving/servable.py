"""The network with the preprocessing of evaluation, as functions that a SavedModel can hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from simclr_tf import pixel_format
from simclr_tf.models import simclr
from simclr_tf.serving import inputs, outputs

# Names of the signatures.
OF_IMAGES, PREPARED = "serving_default", "prepared"
OF_BYTES, OF_BYTES_STRICT = "serving_bytes", "serving_bytes_strict"


def of_whole(pixels: pixel_format.PixelFormat) -> str:
    """Returns the name of the signature of whole numbers, such as serving_uint8."""
    return f"serving_{pixels.dtype}"


class Servable(tf.Module):
    """Functions of a network for images in several forms.

    All return the outputs of `names`, each (b, ...); an empty batch has empty outputs.

    Attributes:
        names: what is returned, see `outputs`.
        feature_width: f, the length of the features.
        weights: the variables on which that depends.
        of_images: function of images (b, h, w, c) float32, of any size: of 8-bit RGB in [0, 1], of
            others as they are stored.
        of_whole: function of images (b, h, w, c) of the type that they are stored in, of any size;
            None if that is float32.
        of_prepared: function of images (b, s, s, c) float32 in [0, 1], which are not resized.
        of_bytes: function of encoded images (b,) string: JPEG, PNG, GIF, or BMP that is not
            compressed; of other pixels than 8-bit RGB, JPEG, PNG or .npy. Photos are turned
            upright. `outputs.VALID` says which could be decoded.
        of_bytes_strict: the same, but an image that cannot be decoded is an error.
    """

    def __init__(self, model: simclr.SimCLR, names: Sequence[str] | None = None) -> None:
        """Creates the functions for the weights of a model, which it does not copy.

        Args:
            model: the network.
            names: see `outputs.choose`.

        Raises:
            UserError: if the network has no head for an output.
        """
        super().__init__(name="simclr")
        self.names = names = outputs.choose(model, names)
        self._size = size = model.architecture.image_size

        # A function holds the model, so that Keras does not add objects to the file.
        def network(images: tf.Tensor) -> dict[str, tf.Tensor]:
            return outputs.compute(model, images, names)

        self.feature_width = model.encoder.num_features
        self.weights = outputs.variables(model, names)
        autograph = model.needs_autograph

        def function(call: Any, shape: list[int | None], dtype: tf.DType, name: str) -> Any:
            signature = [tf.TensorSpec(shape, dtype, name=name)]
            return tf.function(call, input_signature=signature, autograph=autograph)

        # All others call this one, so the network is in the file once.
        self._pixels = pixels = model.architecture.pixels
        prepared = [None, size, size, pixels.channels]
        self._network = function(network, prepared, tf.float32, "images")
        any_size = [None, None, None, pixels.channels]
        self.of_images = function(self._of_images, any_size, tf.float32, "images")
        self.of_whole = None
        if pixels.dtype != "float32":
            dtype = tf.as_dtype(pixels.dtype)
            self.of_whole = function(self._of_images, any_size, dtype, "images")
        self.of_prepared = function(self._of_prepared, prepared, tf.float32, "images")
        self.of_bytes = function(self._of_bytes, [None], tf.string, "image_bytes")
        self.of_bytes_strict = function(self._of_bytes_strict, [None], tf.string, "image_bytes")

    def signatures(self) -> dict[str, Any]:
        """Returns the functions by the names of their signatures."""
        whole = {} if self.of_whole is None else {of_whole(self._pixels): self.of_whole}
        return {
            OF_IMAGES: self.of_images,
            **whole,
            PREPARED: self.of_prepared,
            OF_BYTES: self.of_bytes,
            OF_BYTES_STRICT: self.of_bytes_strict,
        }

    def _of_images(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._first(self._prepared(images), tf.shape(images)[0])

    def _prepared(self, images: tf.Tensor) -> tf.Tensor:
        return inputs.prepare_images(images, self._size, self._pixels)

    def _of_prepared(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._first(inputs.check_prepared(images, self._size), tf.shape(images)[0])

    def _of_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images, valid = inputs.prepare_bytes(image_bytes, self._size, self._pixels, strict=False)
        return outputs.blank(self._first(images, tf.size(image_bytes)), valid)

    def _of_bytes_strict(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images, _ = inputs.prepare_bytes(image_bytes, self._size, self._pixels, strict=True)
        return self._first(images, tf.size(image_bytes))

    def _first(self, images: tf.Tensor, count: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the outputs of the first images; there may be one more than was asked for."""
        return {name: values[:count] for name, values in self._network(images).items()}
