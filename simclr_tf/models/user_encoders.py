"""Users' own encoders, "MODULE:FUNCTION": finding the function, and errors that come from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import importlib
import re
import sys
import traceback
from typing import Any

import numpy as np
import tensorflow as tf

from simclr_tf import errors, text
from simclr_tf.keras_api import keras

# What the code of a user may raise; SystemExit does not inherit from Exception.
_ANYTHING = (Exception, SystemExit)
_MAX_REASON = 300


def find(encoder: str) -> Callable[..., keras.Model]:
    """Imports the function of an encoder.

    Args:
        encoder: "MODULE:FUNCTION".

    Raises:
        ArgumentError: if the module cannot be imported, or has no such function.
    """
    module, _, function = encoder.partition(":")
    try:
        imported = importlib.import_module(module)
    except ImportError as error:
        raise errors.ArgumentError(
            "encoder",
            encoder,
            f"names the module {module!r}, which cannot be imported ({error}); start the program "
            "from the module's folder, or add that folder to PYTHONPATH.",
        ) from error
    except _ANYTHING as error:
        raise failure(encoder, f"when {module!r} was imported", error) from error
    build = getattr(imported, function, None)
    if not callable(build):
        functions = [name for name in dir(imported) if callable(getattr(imported, name))]
        raise errors.ArgumentError(
            "encoder",
            encoder,
            f"names a function that {module} does not have{text.suggestion(function, functions)}.",
        )
    return build


def failure(encoder: str, when: str, error: BaseException) -> errors.ArgumentError:
    """Prints the traceback of an error in a user's code, and returns the error to raise.

    Args:
        encoder: "MODULE:FUNCTION".
        when: when it happened, as a clause.
        error: what the code raised.
    """
    traceback.print_exception(error, file=sys.stderr)
    name, reason = _original(error)
    return errors.ArgumentError(
        "encoder",
        encoder,
        f"raised {name} {when} ({reason}); correct its code, whose traceback is above.",
    )


def _original(error: BaseException) -> tuple[str, str]:
    """Returns the name and the message of an error, without what Keras and TensorFlow added."""
    quoted = re.findall(r"^\s+(\w+(?:Error|Exception)): (.*)$", str(error), re.MULTILINE)
    if quoted:  # AutoGraph quotes the error in its own message; the last is the innermost.
        return quoted[-1]
    message = str(error).partition("Call arguments received by layer")[0]
    message = re.sub(r"Exception encountered when calling layer .*", "", message)
    message = re.sub(r"Could not automatically infer .* Error encountered:", "", message)
    return type(error).__name__, " ".join(message.split()).rstrip(".")[:_MAX_REASON]


@contextlib.contextmanager
def explained(encoder: str, when: str) -> Iterator[None]:
    """Turns whatever is raised in this context into the result of `failure`."""
    try:
        yield
    except errors.UserError:
        raise
    except _ANYTHING as error:
        raise failure(encoder, when, error) from error


@contextlib.contextmanager
def explained_in_training(encoder: str) -> Iterator[None]:
    """Turns errors of the user's module in this context into the result of `failure`.

    Args:
        encoder: "MODULE:FUNCTION".
    """
    try:
        yield
    except errors.UserError:
        raise
    except Exception as error:
        if not _comes_from(encoder, error):
            raise
        raise failure(encoder, "in training", error) from error


def _comes_from(encoder: str, error: Exception) -> bool:
    """Returns whether the module of an encoder is in the traceback of an error.

    TensorFlow quotes the tracebacks of code that it converted, and of operations, in the message.
    """
    module = sys.modules.get(encoder.partition(":")[0])
    path = getattr(module, "__file__", None)
    frames = traceback.extract_tb(error.__traceback__)
    return path is not None and (path in str(error) or any(f.filename == path for f in frames))


def check_output(encoder: str, network: Callable[..., Any], images: tf.Tensor) -> None:
    """Checks what a network makes of random images (n, s, s, 3), with its initial weights.

    Raises:
        ArgumentError: if it does not return one row of floating-point features for each image, or
            they are not finite.
    """
    with explained(encoder, f"for {images.shape[0]} images of {images.shape[1]} px"):
        output = network(images)
    if not tf.is_tensor(output):
        return  # Refused by the caller, as is a wrong number of dimensions.
    rows = output.shape[0] if len(output.shape) else 1
    if rows not in (None, images.shape[0]):
        raise errors.ArgumentError(
            "encoder",
            encoder,
            f"maps {images.shape[0]} images to {rows} rows, with the shape {tuple(output.shape)}; "
            "an encoder must return one row of features, or one map, for each image.",
        )
    if not output.dtype.is_floating:
        raise errors.ArgumentError(
            "encoder",
            encoder,
            f"returns features of the type {output.dtype.name}; they must be floating-point.",
        )
    # float16 may overflow without the statistics of a batch; and a graph holds no values.
    if tf.executing_eagerly() and output.dtype != tf.float16:
        bad = int(np.sum(~np.isfinite(tf.cast(output, tf.float32).numpy())))
        if bad:
            raise errors.ArgumentError(
                "encoder",
                encoder,
                f"maps images to features of which {bad:,} of {int(tf.size(output)):,} are not "
                "finite, with its initial weights; correct its layers or their initializers.",
            )
