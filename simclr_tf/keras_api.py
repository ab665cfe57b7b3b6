"""The Keras that the package uses, and the only module that says where it comes from.

Today it is Keras 2 under the name `tf.keras`; `simclr_tf/__init__.py` sees to that before
TensorFlow is imported.
"""

import tensorflow as tf

keras = tf.keras
