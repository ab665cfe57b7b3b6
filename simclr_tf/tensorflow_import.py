"""Imports TensorFlow for the program, and explains to the user why that fails."""

from __future__ import annotations

from typing import Any

from simclr_tf import errors, text


def tensorflow() -> Any:
    """Returns the module `tensorflow`.

    Raises:
        UserError: if it cannot be imported.
    """
    try:
        import tensorflow as tf
    except Exception as error:  # Packages that do not fit together raise anything.
        raise errors.UserError(
            f"TensorFlow cannot be imported ({type(error).__name__}: {text.reason(error)}); run "
            "python run.py --mode=doctor, which checks the installation."
        ) from error
    return tf
