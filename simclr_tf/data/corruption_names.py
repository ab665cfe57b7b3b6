"""The names of the common corruptions, for settings, which import neither NumPy nor TensorFlow."""

from __future__ import annotations

import importlib.util

# The 15 corruptions of the benchmark, in the order of its paper: noise, blur, weather, digital.
COMMON = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
# Those that the paper keeps for validation, and all. The position in it is part of the seed.
NAMES = (*COMMON, "speckle_noise", "gaussian_blur", "spatter", "saturate")
SEVERITIES = (1, 2, 3, 4, 5)
# The package refuses smaller images.
MIN_SIDE = 32
PACKAGE = "imagecorruptions-imaug"


def is_installed() -> bool:
    """Returns whether the package is installed, without importing it."""
    return importlib.util.find_spec("imagecorruptions") is not None
