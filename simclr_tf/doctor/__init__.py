"""Checks of the installation and the machine; all but `probe` and `speed` do without TensorFlow."""
