"""Writes requests that TensorFlow Serving replays when it loads a model.

Without them, the first requests of clients wait for what TensorFlow prepares at the first run of
a graph. The server reads `assets.extra/tf_serving_warmup_requests`: TFRecords of PredictionLog.
"""

from __future__ import annotations

from collections.abc import Iterator
import io
import os

import numpy as np
import tensorflow as tf

from simclr_tf import pixel_format
from simclr_tf.serving import servable as servables

FILE = "assets.extra/tf_serving_warmup_requests"
# One request for each signature and number of images. More would delay the start of the server.
BATCH_SIZES = (1, 8)
_MODEL = "simclr"  # The server does not compare it with its own name of the model.
_PICTURE = 96  # Side of the encoded picture, in pixels.


def write(
    folder: str, image_size: int, pixels: pixel_format.PixelFormat = pixel_format.RGB
) -> None:
    """Writes the requests for the signatures of a `Servable` into the folder of a SavedModel.

    Args:
        folder: the folder.
        image_size: side of the images that the network takes.
        pixels: their pixels.
    """
    path = os.path.join(folder, FILE)
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.TFRecordWriter(path) as writer:
        for count in BATCH_SIZES:
            for signature, name, values in _inputs(count, image_size, pixels):
                writer.write(_prediction_log(signature, name, values))


def _inputs(
    count: int, size: int, pixels: pixel_format.PixelFormat
) -> Iterator[tuple[str, str, bytes]]:
    """Yields signatures with the name of their input and a TensorProto for it.

    Images are of one grey, which is a single number in a TensorProto.
    """
    shape = [count, size, size, pixels.channels]
    grey = tf.make_tensor_proto(0.5, tf.float32, shape).SerializeToString()
    yield servables.OF_IMAGES, "images", grey
    yield servables.PREPARED, "images", grey
    if pixels.dtype != "float32":
        whole = tf.make_tensor_proto(127, pixels.dtype, shape).SerializeToString()
        yield servables.of_whole(pixels), "images", whole
    files = count * [_file(pixels)]
    encoded = tf.make_tensor_proto(files, tf.string).SerializeToString()
    yield servables.OF_BYTES, "image_bytes", encoded
    yield servables.OF_BYTES_STRICT, "image_bytes", encoded


def _file(pixels: pixel_format.PixelFormat) -> bytes:
    """Returns an encoded picture."""
    if not pixels.is_rgb:
        content = io.BytesIO()
        np.save(content, np.zeros((_PICTURE, _PICTURE, pixels.channels), pixels.dtype))
        return content.getvalue()
    y, x = np.mgrid[:_PICTURE, :_PICTURE]
    picture = np.stack([2 * y, 2 * x, y + x], axis=-1).astype(np.uint8)
    return tf.io.encode_jpeg(picture).numpy()


def _prediction_log(signature: str, name: str, tensor: bytes) -> bytes:
    """Returns a PredictionLog with a request, in the wire format of protocol buffers.

    The package with its classes, tensorflow-serving-api, is only needed by the tests. Numbers of
    fields are those of tensorflow_serving/apis: prediction_log.proto, predict.proto, model.proto.
    """
    model_spec = _field(1, _MODEL.encode()) + _field(3, signature.encode())
    entry = _field(1, name.encode()) + _field(2, tensor)  # Of the map `inputs`.
    request = _field(1, model_spec) + _field(2, entry)
    predict_log = _field(1, request)
    return _field(6, predict_log)


def _field(number: int, content: bytes) -> bytes:
    """Returns a field of a message: its number and type 2 (with a length), length and content."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Returns a number in groups of seven bits, the lowest first; 128 marks that more follow."""
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + _varint(rest) if rest else bytes([low])
