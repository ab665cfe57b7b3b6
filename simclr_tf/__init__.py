"""SimCLR and related methods in TensorFlow 2 and Keras.

The package uses Keras under the name `tf.keras`. Up to TensorFlow 2.15 that is Keras 2. From 2.16
on it is the package keras, which is Keras 3, or the package tf-keras, which is Keras 2, if
`TF_USE_LEGACY_KERAS=1` is set before TensorFlow is imported. The environment variable
`SIMCLR_KERAS` chooses between them, so import this package before TensorFlow.
"""

import contextlib
import importlib.metadata
import os
import sys

__version__ = "0.1.0.dev0"

# Packages that install the module `tensorflow`.
TENSORFLOW_PACKAGES = ("tensorflow", "tensorflow-cpu", "tensorflow-tpu", "tf-nightly")
# 2, 3 or auto: Keras 2 where it exists for this TensorFlow, otherwise Keras 3.
KERAS_VARIABLE = "SIMCLR_KERAS"
_LEGACY = "TF_USE_LEGACY_KERAS"  # Read by TensorFlow 2.16 and newer.
_BACKEND = "KERAS_BACKEND"  # Read by Keras 3.


def installed_tensorflow() -> dict[str, str]:
    """Returns the installed packages with TensorFlow and their versions; imports none of them."""
    found = {}
    for name in TENSORFLOW_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def choose_keras(wanted: str, tensorflow: str, tf_keras: str | None) -> int:
    """Returns which Keras to use, 2 or 3.

    Args:
        wanted: "2", "3" or "auto"; the value of `SIMCLR_KERAS`.
        tensorflow: version of TensorFlow.
        tf_keras: version of the package tf-keras; None if it is not installed.

    Raises:
        ImportError: if there is no such value, or TensorFlow cannot use that Keras.
    """
    if wanted not in ("2", "3", "auto"):
        raise ImportError(f"{KERAS_VARIABLE}={wanted} is not 2, 3 or auto; set one of these.")
    if _minor(tensorflow) < (2, 16):
        if wanted == "3":
            raise ImportError(
                f"{KERAS_VARIABLE}=3 needs TensorFlow 2.16 or newer, and {tensorflow} is "
                f"installed; install a newer one, or set {KERAS_VARIABLE}=2."
            )
        return 2
    if wanted == "auto":
        # A tf-keras of another version than TensorFlow's is not made for it.
        return 2 if tf_keras is not None and _minor(tf_keras) == _minor(tensorflow) else 3
    if wanted == "2" and tf_keras is None:
        minor = ".".join(map(str, _minor(tensorflow)))
        raise ImportError(
            f"{KERAS_VARIABLE}=2 needs the package tf-keras; install tf-keras=={minor}.*, or set "
            f"{KERAS_VARIABLE}=3."
        )
    return int(wanted)


def _minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def _installed_tf_keras() -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("tf-keras")
    return None


def _set_keras() -> int:
    """Makes TensorFlow use the Keras that was chosen; returns its version."""
    versions = list(installed_tensorflow().values())
    # Without TensorFlow, whatever imports it says so. --mode=doctor does not.
    if not versions:
        return 2
    wanted = os.environ.get(KERAS_VARIABLE) or "auto"
    chosen = choose_keras(wanted, versions[0], _installed_tf_keras())
    # TensorFlow up to 2.15 raises if it is asked for the Keras 2 that it has anyway.
    if _minor(versions[0]) < (2, 16):
        return chosen
    legacy = os.environ.get(_LEGACY) in ("1", "true", "True")
    if legacy != (chosen == 2) and "tensorflow" in sys.modules:
        raise ImportError(
            f"TensorFlow was imported before simclr_tf and took Keras {5 - chosen}; import "
            f"simclr_tf first, or set {_LEGACY}={int(chosen == 2)} in the environment."
        )
    os.environ[_LEGACY] = "1" if chosen == 2 else "0"
    if chosen == 3:
        backend = os.environ.setdefault(_BACKEND, "tensorflow")
        if backend != "tensorflow":
            raise ImportError(
                f"{_BACKEND}={backend}, but this program needs Keras on TensorFlow; unset it."
            )
    return chosen


KERAS = _set_keras()
