"""SimCLR and related methods in TensorFlow 2 and Keras 2.

The package uses the Keras 2 API under the name `tf.keras`. TensorFlow up to 2.15 includes it. From
2.16 on it is the package tf-keras, which TensorFlow uses only if `TF_USE_LEGACY_KERAS=1` is set
before TensorFlow is imported. So import this package before TensorFlow.
"""

import importlib.metadata
import os
import sys

__version__ = "0.1.0.dev0"

_DISTRIBUTIONS = ("tensorflow", "tensorflow-cpu", "tensorflow-tpu", "tf-nightly")


def _tensorflow_version() -> tuple[int, int]:
    """Returns (major, minor) of whichever TensorFlow is installed, without importing it."""
    for name in _DISTRIBUTIONS:
        try:
            major, minor = importlib.metadata.version(name).split(".")[:2]
        except importlib.metadata.PackageNotFoundError:
            continue
        return int(major), int(minor)
    raise ImportError("TensorFlow is not installed; run: pip install -r requirements.txt")


def _choose_keras_2() -> None:
    """Makes TensorFlow 2.16 and newer use Keras 2. Older ones use it without being asked."""
    if _tensorflow_version() < (2, 16) or os.environ.get("TF_USE_LEGACY_KERAS") == "1":
        return
    if "tensorflow" in sys.modules:
        raise ImportError(
            "TensorFlow was imported before simclr_tf and took Keras 3; import simclr_tf first, "
            "or set TF_USE_LEGACY_KERAS=1 in the environment."
        )
    os.environ["TF_USE_LEGACY_KERAS"] = "1"


_choose_keras_2()
