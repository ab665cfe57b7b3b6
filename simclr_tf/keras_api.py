"""The Keras that the package uses, and the only module that says where it comes from.

Today it is Keras 2 under the name `tf.keras`; `simclr_tf/__init__.py` sees to that before
TensorFlow is imported.
"""

import importlib.metadata

import tensorflow as tf

keras = tf.keras


def version() -> str:
    """Returns the version of the package that Keras is from: tf-keras, or keras up to 2.15."""
    try:
        return importlib.metadata.version("tf-keras")
    except importlib.metadata.PackageNotFoundError:
        return importlib.metadata.version("keras")
