"""Where the examples of a data set of tensorflow-datasets have their image and their labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from simclr_tf import errors
from simclr_tf.data import indicators, layout

# Key of one label, or those of several.
Label = str | indicators.Keys


def image_key(dataset: str, features: Any) -> str:
    """Returns the key of the image: `image`, or the only image there is.

    Raises:
        errors.UserError: if there is none, or several of other names.
    """
    images = sorted(
        key
        for key, feature in _top_features(features).items()
        if isinstance(feature, tfds.features.Image)
        and not isinstance(feature, tfds.features.LabeledImage)
        and feature.np_dtype != np.float32  # Stored as raw floats, not as a picture.
    )
    if "image" in images:
        return "image"
    if len(images) != 1:
        found = f"{len(images)} ({', '.join(images)})" if images else "none"
        raise errors.UserError(
            f"The data set {dataset!r} must have one image per example, named 'image' or the only "
            f"one, but has {found}; choose another data set."
        )
    return images[0]


def label_key(info: Any, *, several_labels: bool) -> Label | None:
    """Returns the key of the class label: `label`, or the second of the supervised keys.

    Args:
        info: what tensorflow-datasets knows about the data set.
        several_labels: whether `labels`, of an image that may have several, will do instead.
    """
    keys = ["label"]
    if info.supervised_keys and len(info.supervised_keys) > 1:
        keys.append(info.supervised_keys[1])
    features = _top_features(info.features)
    for key in keys:
        if isinstance(key, str) and isinstance(features.get(key), tfds.features.ClassLabel):
            return key
    if several_labels and _is_list_of_labels(features.get("labels")):
        clear = "labels_no_difficult"
        return indicators.Keys("labels", clear if _is_list_of_labels(features.get(clear)) else None)
    return None


def class_names(info: Any, label: Label | None) -> tuple[str, ...] | None:
    """Returns the names of the classes; None without a label."""
    if label is None:
        return None
    if isinstance(label, indicators.Keys):
        feature = info.features[label.labels].feature
    else:
        feature = info.features[label]
    return tuple(map(layout.usual_form, feature.names))


def _is_list_of_labels(feature: Any) -> bool:
    return isinstance(getattr(feature, "feature", None), tfds.features.ClassLabel)


def _top_features(features: Any) -> dict[str, Any]:
    return dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
