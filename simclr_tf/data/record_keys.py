"""Where the examples of a data set of tensorflow-datasets have their image and their labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from simclr_tf import errors, pixel_format
from simclr_tf.data import indicators, layout

# Key of one label, or those of several.
Label = str | indicators.Keys


def image_key(dataset: str, features: Any) -> str:
    """Returns the key of the image: `image`, or the only image there is.

    An image is a picture or, where there are none, an array of height, width and channels.

    Raises:
        errors.UserError: if there is none, or several of other names.
    """
    top = _top_features(features)
    images = sorted(key for key, feature in top.items() if is_encoded(feature))
    images = images or sorted(key for key, feature in top.items() if _is_array(feature))
    if "image" in images:
        return "image"
    if len(images) != 1:
        found = f"{len(images)} ({', '.join(images)})" if images else "none"
        raise errors.UserError(
            f"The data set {dataset!r} must have one image per example, named 'image' or the only "
            f"one, but has {found}; choose another data set."
        )
    return images[0]


def is_encoded(feature: Any) -> bool:
    """Returns whether a feature is stored as a picture."""
    return (
        isinstance(feature, tfds.features.Image)
        and not isinstance(feature, tfds.features.LabeledImage)
        and feature.np_dtype != np.float32  # Stored as raw floats, not as a picture.
    )


def pixels_of(feature: Any) -> pixel_format.PixelFormat | None:
    """Returns what the images of a feature hold; None if it does not say.

    Pictures of 8 bits are RGB, into which they are converted.
    """
    dtype = pixel_format.natural_dtype(np.dtype(feature.np_dtype).name)
    channels = feature.shape[-1]
    if is_encoded(feature) and dtype == pixel_format.RGB.dtype:
        return pixel_format.RGB
    if dtype is None or channels is None:
        return None
    return pixel_format.of_dtype(channels, dtype)


def _is_array(feature: Any) -> bool:
    """Returns whether a feature is an array of height, width and channels that can be an image."""
    if isinstance(feature, tfds.features.LabeledImage):
        return False
    is_tensor = isinstance(feature, (tfds.features.Tensor, tfds.features.Image))
    shape: tuple[int | None, ...] = getattr(feature, "shape", None) or ()
    if not is_tensor or len(shape) != 3 or shape[-1] is None:
        return False
    return pixel_format.natural_dtype(np.dtype(feature.np_dtype).name) is not None


def label_key(info: Any, *, several_labels: bool) -> Label | None:
    """Returns the key of the class label: `label`, or the second of the supervised keys.

    Args:
        info: what tensorflow-datasets knows about the data set.
        several_labels: whether a list of classes or of objects, of an image that may have several,
            will do instead.
    """
    keys = ["label"]
    if info.supervised_keys and len(info.supervised_keys) > 1:
        keys.append(info.supervised_keys[1])
    features = _top_features(info.features)
    for key in keys:
        if isinstance(key, str) and isinstance(features.get(key), tfds.features.ClassLabel):
            return key
    return _key_of_lists(info, features) if several_labels else None


def _key_of_lists(info: Any, features: dict[str, Any]) -> Label | None:
    """Returns the keys of the classes of an image; None if there are none, or any of several.

    They are the list `labels`, or the second of the supervised keys, or the only list of classes.
    Without such a list, they are the classes of the objects, if these have one.
    """
    lists = [key for key, feature in features.items() if _is_list_of_labels(feature)]
    keys = ["labels", *(info.supervised_keys or ())[1:2], *(lists if len(lists) == 1 else ())]
    key = next((key for key in keys if key in lists), None)
    if key is None:
        of_objects = [] if lists else list(_keys_of_objects(features))
        return of_objects[0] if len(of_objects) == 1 else None
    clear = f"{key}_no_difficult"
    return indicators.Keys(key, clear if clear in lists else None)


def _keys_of_objects(features: dict[str, Any]) -> Iterator[indicators.Keys]:
    """Yields the keys of every class that each object in a list has."""
    for key, feature in features.items():
        of_objects = getattr(feature, "feature", None)
        if isinstance(feature, tfds.features.Sequence):
            for name, of_object in _top_features(of_objects).items():
                if isinstance(of_object, tfds.features.ClassLabel):
                    yield indicators.Keys(key, of_object=name)


def class_names(info: Any, label: Label | None) -> tuple[str, ...] | None:
    """Returns the names of the classes; None without a label."""
    if label is None:
        return None
    return tuple(map(layout.usual_form, label_feature(info, label).names))


def label_feature(info: Any, label: Label) -> Any:
    """Returns the feature that has the names of the classes.

    Args:
        info: what tensorflow-datasets knows about the data set.
        label: a key of `label_key`.
    """
    if not isinstance(label, indicators.Keys):
        return info.features[label]
    entry = info.features[label.labels].feature
    return entry if label.of_object is None else entry[label.of_object]


def read_of_labels(label: Label | None) -> dict[str, Any]:
    """Returns which features of labels are read, for `tfds.decode.PartialDecoding`."""
    if label is None:
        return {}
    if not isinstance(label, indicators.Keys):
        return {label: True}
    if label.of_object is not None:
        return {label.labels: {label.of_object: True}}
    return {label.labels: True, **({label.clear: True} if label.clear else {})}


def _is_list_of_labels(feature: Any) -> bool:
    return isinstance(getattr(feature, "feature", None), tfds.features.ClassLabel)


def _top_features(features: Any) -> dict[str, Any]:
    return dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
