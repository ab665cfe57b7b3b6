"""SimCLR and related methods in TensorFlow 2 and Keras 2.

The package uses the Keras 2 API under the name `tf.keras`. TensorFlow up to 2.15 includes it. From
2.16 on it is the package tf-keras, which TensorFlow uses only if `TF_USE_LEGACY_KERAS=1` is set
before TensorFlow is imported. So import this package before TensorFlow.
"""

import contextlib
import importlib.metadata
import os
import sys

__version__ = "0.1.0.dev0"

# Packages that install the module `tensorflow`.
TENSORFLOW_PACKAGES = ("tensorflow", "tensorflow-cpu", "tensorflow-tpu", "tf-nightly")


def installed_tensorflow() -> dict[str, str]:
    """Returns the installed packages with TensorFlow and their versions; imports none of them."""
    found = {}
    for name in TENSORFLOW_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _choose_keras_2() -> None:
    """Makes TensorFlow 2.16 and newer use Keras 2. Older ones use it without being asked."""
    versions = list(installed_tensorflow().values())
    # Without TensorFlow, whatever imports it says so. --mode=doctor does not.
    if not versions or os.environ.get("TF_USE_LEGACY_KERAS") == "1":
        return
    major, minor = versions[0].split(".")[:2]
    if (int(major), int(minor)) < (2, 16):
        return
    if "tensorflow" in sys.modules:
        raise ImportError(
            "TensorFlow was imported before simclr_tf and took Keras 3; import simclr_tf first, "
            "or set TF_USE_LEGACY_KERAS=1 in the environment."
        )
    os.environ["TF_USE_LEGACY_KERAS"] = "1"


_choose_keras_2()
