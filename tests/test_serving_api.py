"""What the clients of the example read: numbers, and messages of servers."""

from __future__ import annotations

from email import message
import io
from typing import Any
import urllib.error

import numpy as np
import pytest
import serving_api
import tensorflow as tf

REASON = "The image is not a JPEG, PNG, GIF or BMP file"


@pytest.mark.parametrize(
    ("said", "readable"),
    [
        (
            f"Graph execution error:\n\nassertion failed: [{REASON}.] [[{{{{node A}}}}]]",
            f"{REASON}.",
        ),
        (
            "assertion failed: [Crop it (height, width):] [1 999]\n\t [[x]]",
            "Crop it (height, width): 1 999",
        ),
        ("Error in function with iterator: A::B: No JPEG.\n [[{{node A}}]] [[B]]", "No JPEG."),
        ("Shapes [1,2] and [3]", "Shapes [1,2] and [3]"),
        ("\x00\x01HTTP", "HTTP"),
    ],
)
def test_messages_of_tensorflow_are_shortened_to_what_is_for_people(said, readable):
    assert serving_api.RequestError("UNKNOWN", said).detail == readable


@pytest.mark.parametrize(
    "values",
    [np.full((2, 3), 0.5, np.float32), np.arange(4, dtype=np.int64), np.zeros((0, 3), "f")],
)
def test_arrays_are_read_in_both_forms_of_a_message(values):
    tensor = tf.make_tensor_proto(values)  # As bytes, or as one number for equal ones.
    for one in (tensor, _with_fields(values)):
        got = serving_api._array(one)
        np.testing.assert_array_equal(got, values)
        assert (got.dtype, got.shape) == (values.dtype, values.shape)


def _with_fields(values: np.ndarray) -> Any:
    """Returns a message as TensorFlow Serving makes it: every number in a field."""
    tensor = tf.make_tensor_proto(np.zeros(0, values.dtype), shape=[0])
    tensor.Clear()
    tensor.dtype = tf.as_dtype(values.dtype).as_datatype_enum
    for size in values.shape:
        tensor.tensor_shape.dim.add().size = size
    field = {np.dtype("f"): "float_val", np.dtype(np.int64): "int64_val"}[values.dtype]
    getattr(tensor, field).extend(values.ravel().tolist())
    return tensor


def test_what_stands_between_may_answer_in_another_form():
    text = io.BytesIO(b"<html>Bad gateway</html>")
    error = urllib.error.HTTPError("http://x", 502, "Bad Gateway", message.Message(), text)
    assert serving_api._said(error) == "<html>Bad gateway</html>"
