"""AutoAugment (Cubuk et al. 2019) and RandAugment (Cubuk et al. 2020), stateless.

Every image draws its own operations (ops) and their magnitudes. The papers count magnitudes from 0
to 10; the tables here convert them to the argument of each op, as the published TensorFlow code
does (of EfficientNet for ImageNet, of AutoAugment for CIFAR-10). There are two differences: images
stay float32 instead of being rounded to 8 bits after each op, and `contrast` uses the mean of the
image, while that code divides the number of pixels by 256. Translations and cutouts, which it gives
in pixels, are the same fraction of the side at every image size.

Images are (b, 3, h, w) float32 in [0, 1], channels first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from simclr_tf.data import augment, geometry, random, tones

_MAX_LEVEL = 10
# In that code RandAugment moves 224-pixel images by up to 100 and covers up to 2 * 40 pixels.
_RAND_TRANSLATE, _RAND_CUTOUT = 100 / 224, 40 / 224
# The AutoAugment paper moves 331-pixel images by up to 150; its code 32-pixel ones by up to 10.
_IMAGENET_TRANSLATE, _CIFAR_TRANSLATE = 150 / 331, 10 / 32


class PolicyParams(NamedTuple):
    """What is drawn for each image: k ops, first to last.

    Attributes:
        op: (b, k) int32, indices in `OPS`; 0 is none.
        magnitude: (b, k) float32, the argument of the op, with its sign.
        centre: (b, k, 2) float32 in [0, 1), the centre of a cutout.
    """

    op: tf.Tensor
    magnitude: tf.Tensor
    centre: tf.Tensor


def _rotate(images: tf.Tensor, magnitude: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    height, width = tf.unstack(tf.shape(images)[2:])
    return geometry.transform(images, geometry.rotation(magnitude, height, width))


def _shear_x(images: tf.Tensor, magnitude: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    return geometry.transform(images, geometry.shear(magnitude, tf.zeros_like(magnitude)))


def _shear_y(images: tf.Tensor, magnitude: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    return geometry.transform(images, geometry.shear(tf.zeros_like(magnitude), magnitude))


def _translate_x(images: tf.Tensor, magnitude: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    pixels = magnitude * tf.cast(tf.shape(images)[3], tf.float32)
    return geometry.transform(images, geometry.translation(pixels, tf.zeros_like(pixels)))


def _translate_y(images: tf.Tensor, magnitude: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    pixels = magnitude * tf.cast(tf.shape(images)[2], tf.float32)
    return geometry.transform(images, geometry.translation(tf.zeros_like(pixels), pixels))


def _cutout(images: tf.Tensor, magnitude: tf.Tensor, centre: tf.Tensor) -> tf.Tensor:
    side = tf.cast(tf.shape(images)[3], tf.float32)
    centres = tf.cast(centre * side, tf.int32)
    halves = tf.cast(magnitude * side, tf.int32)
    boxes = geometry.boxes_around(centres, halves, tf.shape(images)[3])
    return geometry.cutout(images, boxes)


def _plain(op: Callable) -> Callable:
    """Gives an op without magnitude the signature of `_FUNCTIONS`."""
    return lambda images, *_: op(images)


def _by_magnitude(op: Callable) -> Callable:
    return lambda images, magnitude, _: op(images, magnitude)


# Each takes images, magnitudes (b,) and centres (b, 2).
_FUNCTIONS: dict[str, Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "none": lambda images, *_: images,
    "autocontrast": _plain(tones.autocontrast),
    "equalize": _plain(tones.equalize),
    "invert": _plain(tones.invert),
    "rotate": _rotate,
    "posterize": _by_magnitude(tones.posterize),
    "solarize": _by_magnitude(tones.solarize),
    "solarize_add": _by_magnitude(tones.solarize_add),
    "color": _by_magnitude(tones.color),
    "contrast": _by_magnitude(tones.contrast),
    "brightness": _by_magnitude(tones.brightness),
    "sharpness": _by_magnitude(tones.sharpness),
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
    "cutout": _cutout,
}
OPS = tuple(_FUNCTIONS)
# Ops whose magnitude is positive or negative with equal probability.
_SIGNED = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


def magnitude_of(
    op: str, level: float, *, translate: float, higher_is_stronger: bool = False
) -> float:
    """Converts a level from 0 to 10 to the argument of an op: degrees, fractions, bits, factors.

    Args:
        op: one of `OPS`.
        level: the papers' magnitude.
        translate: fraction of the side by which level 10 moves an image.
        higher_is_stronger: whether higher levels solarize and posterize more, as in AutoAugment's
            own code, or less, as in EfficientNet's.
    """
    fraction = level / _MAX_LEVEL
    if op == "rotate":
        return 30.0 * fraction
    if op in ("shear_x", "shear_y"):
        return 0.3 * fraction
    if op in ("translate_x", "translate_y"):
        return translate * fraction
    if op in ("color", "contrast", "brightness", "sharpness"):
        return 1.8 * fraction + 0.1
    if op == "posterize":
        return float(4 - int(4 * fraction) if higher_is_stronger else int(4 * fraction))
    if op == "solarize":
        return (256 - int(256 * fraction) if higher_is_stronger else int(256 * fraction)) / 255
    if op == "solarize_add":
        return int(110 * fraction) / 255
    if op == "cutout":
        return _RAND_CUTOUT * fraction
    return 0.0


def sample_randaugment(
    seed: tf.Tensor, batch: augment.Size, *, num_layers: int = 2, level: float = 10.0
) -> PolicyParams:
    """Draws RandAugment: each layer applies any op, with a probability drawn from 0.2 to 0.8.

    Args:
        seed: (2,) int32.
        batch: number of images.
        num_layers: number of ops, the paper's N.
        level: level of all ops, from 0 to 10; the paper's M.
    """
    seeds = random.split_seed(seed, 3)
    drawn = random.uniform(seeds[0], (batch, num_layers))
    op = 1 + tf.cast(drawn * (len(OPS) - 1), tf.int32)  # (b, k)
    probability = random.uniform(seeds[1], (batch, num_layers, 2))
    applied = probability[..., 0] < 0.2 + 0.6 * probability[..., 1]
    levels = [magnitude_of(name, level, translate=_RAND_TRANSLATE) for name in OPS]
    return _finish(seeds[2], tf.where(applied, op, 0), tf.gather(_float32(levels), op))


def sample_autoaugment(seed: tf.Tensor, batch: augment.Size, *, policy: str) -> PolicyParams:
    """Draws AutoAugment: for each image one of a policy's sub-policies, which are two ops each.

    Args:
        seed: (2,) int32.
        batch: number of images.
        policy: "imagenet" or "cifar10".
    """
    ops, probabilities, magnitudes = _TABLES[policy]  # (sub-policies, 2) each
    seeds = random.split_seed(seed, 3)
    choice = tf.cast(random.uniform(seeds[0], (batch,)) * float(len(ops)), tf.int32)  # (b,)
    applied = random.uniform(seeds[1], (batch, 2)) < tf.gather(_float32(probabilities), choice)
    op = tf.where(applied, tf.gather(tf.constant(ops, tf.int32), choice), 0)
    return _finish(seeds[2], op, tf.gather(_float32(magnitudes), choice))


def _finish(seed: tf.Tensor, op: tf.Tensor, magnitude: tf.Tensor) -> PolicyParams:
    """Draws the signs of magnitudes and the centres of cutouts."""
    drawn = random.uniform(seed, (op.shape[0] or tf.shape(op)[0], op.shape[1], 3))
    signed = tf.gather(tf.constant([name in _SIGNED for name in OPS]), op)
    negative = signed & (drawn[..., 0] < 0.5)
    return PolicyParams(op, tf.where(negative, -magnitude, magnitude), drawn[..., 1:])


def apply_policy(images: tf.Tensor, params: PolicyParams) -> tf.Tensor:
    """Applies to each image the ops drawn for it, one after another.

    Image by image, because each has its own ops: applying every op to all costs 16 times as much.

    Args:
        images: (b, 3, h, w) in [0, 1].
        params: result of `sample_autoaugment` or `sample_randaugment`.

    Returns:
        (b, 3, h, w) in [0, 1].
    """

    def apply_ops(row: tuple[tf.Tensor, PolicyParams]) -> tf.Tensor:
        image, drawn = row
        image = image[tf.newaxis]  # (1, 3, h, w)
        for k in range(drawn.op.shape[0]):
            image = _one_op(image, drawn.op[k], drawn.magnitude[k : k + 1], drawn.centre[k : k + 1])
        return image[0]

    return tf.map_fn(
        apply_ops,
        (images, params),
        fn_output_signature=tf.TensorSpec(images.shape[1:], tf.float32),
        parallel_iterations=1,  # The other cores work on other batches.
    )


def _one_op(image: tf.Tensor, op: tf.Tensor, magnitude: tf.Tensor, centre: tf.Tensor) -> tf.Tensor:
    def branch(name: str) -> Callable[[], tf.Tensor]:
        return lambda: tf.ensure_shape(_FUNCTIONS[name](image, magnitude, centre), image.shape)

    return tf.switch_case(op, [branch(name) for name in OPS])


def _float32(values: Sequence) -> tf.Tensor:
    return tf.constant(np.asarray(values, np.float32))


def _table(
    text: str, *, translate: float, higher_is_stronger: bool = False
) -> tuple[list[list[int]], list[list[float]], list[list[float]]]:
    """Parses sub-policies, one per line: op, probability, level, and the same for a second op."""
    ops, probabilities, magnitudes = [], [], []
    for line in text.strip().splitlines():
        words = line.split()
        names, levels = (words[0], words[3]), (float(words[2]), float(words[5]))
        ops.append([OPS.index(name) for name in names])
        probabilities.append([float(words[1]), float(words[4])])
        magnitudes.append(
            [
                magnitude_of(
                    name, level, translate=translate, higher_is_stronger=higher_is_stronger
                )
                for name, level in zip(names, levels)
            ]
        )
    return ops, probabilities, magnitudes


_IMAGENET = """
equalize     0.8 1   shear_y      0.8 4
color        0.4 9   equalize     0.6 3
color        0.4 1   rotate       0.6 8
solarize     0.8 3   equalize     0.4 7
solarize     0.4 2   solarize     0.6 2
color        0.2 0   equalize     0.8 8
equalize     0.4 8   solarize_add 0.8 3
shear_x      0.2 9   rotate       0.6 8
color        0.6 1   equalize     1.0 2
invert       0.4 9   rotate       0.6 0
equalize     1.0 9   shear_y      0.6 3
color        0.4 7   equalize     0.6 0
posterize    0.4 6   autocontrast 0.4 7
solarize     0.6 8   color        0.6 9
solarize     0.2 4   rotate       0.8 9
rotate       1.0 7   translate_y  0.8 9
shear_x      0.0 0   solarize     0.8 4
shear_y      0.8 0   color        0.6 4
color        1.0 0   rotate       0.6 2
equalize     0.8 4   equalize     0.0 8
equalize     1.0 4   autocontrast 0.6 2
shear_y      0.4 7   solarize_add 0.6 7
posterize    0.8 2   solarize     0.6 10
solarize     0.6 8   equalize     0.6 1
color        0.8 6   rotate       0.4 5
"""
_CIFAR10 = """
invert       0.1 7   contrast     0.2 6
rotate       0.7 2   translate_x  0.3 9
sharpness    0.8 1   sharpness    0.9 3
shear_y      0.5 8   translate_y  0.7 9
autocontrast 0.5 8   equalize     0.9 2
shear_y      0.2 7   posterize    0.3 7
color        0.4 3   brightness   0.6 7
sharpness    0.3 9   brightness   0.7 9
equalize     0.6 5   equalize     0.5 1
contrast     0.6 7   sharpness    0.6 5
color        0.7 7   translate_x  0.5 8
equalize     0.3 7   autocontrast 0.4 8
translate_y  0.4 3   sharpness    0.2 6
brightness   0.9 6   color        0.2 8
solarize     0.5 2   invert       0.0 3
equalize     0.2 0   autocontrast 0.6 0
equalize     0.2 8   equalize     0.6 4
color        0.9 9   equalize     0.6 6
autocontrast 0.8 4   solarize     0.2 8
brightness   0.1 3   color        0.7 0
solarize     0.4 5   autocontrast 0.9 3
translate_y  0.9 9   translate_y  0.7 9
autocontrast 0.9 2   solarize     0.8 3
equalize     0.8 8   invert       0.1 3
translate_y  0.7 9   autocontrast 0.9 1
"""
_TABLES = {
    "imagenet": _table(_IMAGENET, translate=_IMAGENET_TRANSLATE),
    "cifar10": _table(_CIFAR10, translate=_CIFAR_TRANSLATE, higher_is_stronger=True),
}
