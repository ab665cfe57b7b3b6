"""Views per second of the input pipeline, against the obvious one of `tf.image`, image by image.

    python benchmarks/input_pipeline.py --clothing=PATH   tables
    python benchmarks/input_pipeline.py --json            the same, and one JSON object at the end

Both sides make two SimCLR views of each image with the reference's settings, from encoded bytes to
batches. The obvious side does what google-research/simclr does: decode an image once, crop, flip
and jitter each view by itself with `tf.image`, and blur the batch by a depthwise convolution.
The sides take turns, so that a busy machine slows both alike; medians. The CPU does all the work.

  32 px: PNGs of 32 by 32 pixels.    224 px: photos in JPEG of 400 pixels or so (--clothing=PATH, a
  folder of train/CLASS/*.jpg; without it, photos are made up of noise and shapes).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
import json
import os
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import numpy as np
import psutil

import simclr_tf  # noqa: F401  (chooses Keras 2 before TensorFlow is imported)

import tensorflow as tf  # isort: skip

from simclr_tf.data import operation_names, pipeline, policies, sources, views

_AUTOTUNE = tf.data.AUTOTUNE
_SMALL, _LARGE = 32, 224


# --- the obvious pipeline


def obvious_view(image: tf.Tensor, size: int) -> tf.Tensor:
    """Makes one view, but for its blur, by `tf.image`, with the reference's settings."""
    begin, extent, _ = tf.image.sample_distorted_bounding_box(
        tf.shape(image),
        [[[0.0, 0.0, 1.0, 1.0]]],
        min_object_covered=0.1,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(0.08, 1.0),
        max_attempts=100,
        use_image_if_no_bounding_boxes=True,
    )
    y, x, _ = tf.unstack(begin)
    height, width, _ = tf.unstack(extent)
    image = tf.image.crop_to_bounding_box(image, y, x, height, width)
    image = tf.image.resize(image[tf.newaxis], [size, size], "bicubic")[0]
    image = tf.image.random_flip_left_right(tf.reshape(image, [size, size, 3]))
    image = _sometimes(0.8, obvious_jitter, image)
    image = _sometimes(
        0.2, lambda x: tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(x)), image
    )
    return tf.clip_by_value(image, 0.0, 1.0)


def obvious_jitter(image: tf.Tensor) -> tf.Tensor:
    """Brightness, contrast, saturation and hue at strength 1, in random order."""
    ops = [
        lambda x: x * tf.random.uniform([], 0.2, 1.8),
        lambda x: tf.image.random_contrast(x, 0.2, 1.8),
        lambda x: tf.image.random_saturation(x, 0.2, 1.8),
        lambda x: tf.image.random_hue(x, 0.2),
    ]
    order = tf.random.shuffle(tf.range(4))
    for i in range(4):
        image = tf.clip_by_value(_one_of(order[i], ops, image), 0.0, 1.0)
    return image


def _one_of(which: tf.Tensor, ops: list[Callable], image: tf.Tensor) -> tf.Tensor:
    """Applies one of four operations, by conditions within conditions as the reference does."""
    return tf.cond(
        which < 2,
        lambda: tf.cond(which < 1, lambda: ops[0](image), lambda: ops[1](image)),
        lambda: tf.cond(which < 3, lambda: ops[2](image), lambda: ops[3](image)),
    )


def _sometimes(probability: float, op: Callable, image: tf.Tensor) -> tf.Tensor:
    return tf.cond(tf.random.uniform([]) < probability, lambda: op(image), lambda: image)


def obvious_blur(images: tf.Tensor, size: int) -> tf.Tensor:
    """Blurs half of a batch, all by one width, by a depthwise convolution."""
    radius = size // 10 // 2
    offsets = tf.range(-radius, radius + 1, dtype=tf.float32)
    taps = tf.exp(-(offsets**2) / (2.0 * tf.random.uniform([], 0.1, 2.0) ** 2))
    taps /= tf.reduce_sum(taps)
    kernel = tf.tile(taps[:, tf.newaxis, tf.newaxis, tf.newaxis], [1, 1, 3, 1])
    blurred = tf.nn.depthwise_conv2d(images, kernel, [1, 1, 1, 1], "SAME")
    kernel = tf.transpose(kernel, [1, 0, 2, 3])
    blurred = tf.nn.depthwise_conv2d(blurred, kernel, [1, 1, 1, 1], "SAME")
    chosen = tf.cast(tf.random.uniform([tf.shape(images)[0], 1, 1, 1]) < 0.5, tf.float32)
    return tf.clip_by_value(chosen * blurred + (1 - chosen) * images, 0.0, 1.0)


def obvious_batches(encoded: list[bytes], size: int, batch_size: int) -> tf.data.Dataset:
    """Returns endless batches (b, 2, s, s, 3) of the obvious pipeline."""

    def views(content: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_image(content, channels=3, expand_animations=False)
        image = tf.image.convert_image_dtype(tf.ensure_shape(image, [None, None, 3]), tf.float32)
        return tf.concat([obvious_view(image, size), obvious_view(image, size)], axis=-1)

    def split(batch: tf.Tensor) -> tf.Tensor:
        both = tf.split(batch, 2, axis=-1)
        return tf.stack([obvious_blur(images, size) for images in both], axis=1)

    stream = tf.data.Dataset.from_tensor_slices(encoded).repeat().shuffle(len(encoded))
    stream = stream.map(views, num_parallel_calls=_AUTOTUNE).batch(batch_size, drop_remainder=True)
    return stream.map(split, num_parallel_calls=_AUTOTUNE).prefetch(_AUTOTUNE)


# --- ours


class _Memory:
    """Streams encoded images from memory, so that disks are left out of the measurement."""

    def __init__(self, encoded: list[bytes]) -> None:
        self._encoded = encoded
        self.split_infos: dict = {}

    def examples(self, slices, *, order_seed=None):  # type: ignore[no-untyped-def]
        del slices
        count = len(self._encoded)
        with tf.init_scope():
            images = tf.constant(self._encoded)
        if order_seed is not None:
            keys = tf.random.stateless_uniform([count], order_seed, None, None, tf.int64)
            images = tf.gather(images, tf.argsort(keys))
        return tf.data.Dataset.from_tensor_slices(
            {"image": images, "label": -tf.ones([count], tf.int64), "name": tf.fill([count], "")}
        )

    def num_bytes(self, slices) -> int:  # type: ignore[no-untyped-def]
        del slices
        return sum(map(len, self._encoded))

    def example_name(self, slices, index: int) -> str:  # type: ignore[no-untyped-def]
        del slices
        return str(index)


class _Source(sources.Source):
    def _slices(self, split: str) -> list[tuple[str, int, int]]:
        return [(split, 0, self.splits[split])]


def our_batches(
    encoded: list[bytes],
    policy: policies.Policy,
    batch_size: int,
    *,
    one_size: bool,
    augment_on: str = "host",
) -> tf.data.Dataset:
    """Returns endless batches of this project's pipeline, as training reads them."""
    shape = (policy.image_size, policy.image_size) if one_size else (None, None)
    source = _Source(
        "memory",
        None,
        {"train": len(encoded)},
        shape,
        (),
        _Memory(encoded),  # type: ignore[arg-type]  # It is only streamed.
        kind="png" if one_size else None,
    )
    return pipeline.train_batches(
        source, "train", policy, batch_size=batch_size, num_views=2, seed=0, augment_on=augment_on
    )


def on_device(policy: policies.Policy, batch_size: int, *, jit_compile: bool) -> Callable:
    """Returns the function that makes a batch's views as the training step does."""

    def made(batch: dict) -> tf.Tensor:
        return pipeline.views_of_batch(batch, policy, num_views=2, total=batch_size)["views"]

    return tf.function(made, jit_compile=jit_compile)


# --- measuring


def photos(folder: str | None, count: int) -> list[bytes]:
    """Returns encoded photos: the first of a folder, or made-up ones."""
    if folder:
        source = sources.open_source("image_folder", data_dir=folder, seed=0)
        return [e["image"].numpy() for e in source.examples("train").take(count)]
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        rough = tf.constant(rng.uniform(0, 255, (12, 9, 3)), tf.float32)
        image = tf.image.resize(rough, [533, 400], "bicubic") + rng.normal(0, 8, (533, 400, 3))
        image = tf.cast(tf.clip_by_value(image, 0, 255), tf.uint8)
        made.append(tf.io.encode_jpeg(image, quality=90).numpy())
    return made


def small_images(count: int) -> list[bytes]:
    """Returns made-up pictures of 32 pixels, encoded as PNG as CIFAR-10's are."""
    rng = np.random.default_rng(0)
    rough = tf.constant(rng.uniform(0, 1, (count, 6, 6, 3)), tf.float32)
    images = tf.image.resize(rough, [_SMALL, _SMALL], "bicubic")
    images = tf.image.convert_image_dtype(tf.clip_by_value(images, 0, 1), tf.uint8)
    return [tf.io.encode_png(image).numpy() for image in images]


class Side:
    """One side of a comparison: views per second, a few batches at a time."""

    def __init__(self, start: Callable[[], Iterator[tf.Tensor]], views_per_batch: int) -> None:
        """Takes what starts a stream of batches of views; traces it."""
        self._start, self._views = start, views_per_batch
        self.rates: list[float] = []
        next(start())

    def measure(self, batches: int) -> None:
        """Adds a measurement over some batches.

        The stream is started anew, so that nothing was prepared while another side was measured,
        and ends with it.
        """
        iterator = self._start()
        next(iterator)
        start = time.perf_counter()
        for _ in range(batches):
            next(iterator)
        self.rates.append(batches * self._views / (time.perf_counter() - start))

    @property
    def rate(self) -> float:
        """Views per second, the median."""
        return statistics.median(self.rates)


def take_turns(sides: dict[str, Side], *, rounds: int, batches: int) -> None:
    """Measures all sides, one after another, several times."""
    for _ in range(rounds):
        for side in sides.values():
            side.measure(batches)


def compare(
    encoded: list[bytes], size: int, batch_size: int, *, rounds: int, batches: int
) -> dict[str, Side]:
    """Measures the obvious pipeline and ours, on the host and on the device."""
    policy = policies.Policy(size)
    obvious = obvious_batches(encoded, size, batch_size)
    on_host, for_device = (
        our_batches(encoded, policy, batch_size, one_size=size == _SMALL, augment_on=place)
        for place in ("host", "device")
    )
    plain, compiled = (
        on_device(policy, batch_size, jit_compile=jit_compile) for jit_compile in (False, True)
    )
    starts: dict[str, Callable[[], Iterator[tf.Tensor]]] = {
        "obvious": lambda: iter(obvious),
        "ours, host": lambda: (batch["views"] for batch in on_host),
        "ours, device": lambda: (plain(batch) for batch in for_device),
        "ours, device, XLA": lambda: (compiled(batch) for batch in for_device),
    }
    sides = {name: Side(start, 2 * batch_size) for name, start in starts.items()}
    take_turns(sides, rounds=rounds, batches=batches)
    return sides


def each_operation(size: int, batch_size: int, *, rounds: int) -> dict[str, Side]:
    """Measures each operation alone, on a batch of crops in memory, without tf.data."""
    images = tf.random.stateless_uniform([batch_size, size, size, 3], [0, 1])
    seed = tf.constant([0, 1])

    def stream(ops: tuple[str, ...]) -> Callable[[], Iterator[tf.Tensor]]:
        policy = policies.Policy(size, ops=ops)
        make = tf.function(lambda: views.make_views(images, seed, policy, num_views=1))
        if operation_names.CROP not in ops:
            crops = 255.0 * images[:, tf.newaxis]
            make = tf.function(lambda: views.distort_views(crops, seed, policy))
        return lambda: iter(make, None)

    names = (operation_names.CROP, *operation_names.OPERATIONS)
    sides = {name: Side(stream((name,)), batch_size) for name in names}
    take_turns(sides, rounds=rounds, batches=1)
    return sides


def memory_growth(batches: tf.data.Dataset, count: int = 200) -> tuple[float, float]:
    """Returns MiB of this process after a tenth of some batches and the most it was after that."""
    process, seen = psutil.Process(), []
    for number, _ in enumerate(batches.take(count)):
        if number >= count // 10:
            seen.append(process.memory_info().rss / 2**20)
    return seen[0], max(seen)


def _print(title: str, sides: dict[str, Side]) -> None:
    print(f"\n{title}")
    for name, side in sides.items():
        ratio = side.rate / sides["obvious"].rate if "obvious" in sides else None
        print(f"  {name:22} {side.rate:10,.0f} views/s" + (f" {ratio:8.2f}x" if ratio else ""))


def main() -> None:
    """Measures, prints tables, and with --json the object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object as the last line")
    parser.add_argument("--clothing", help="folder of photos, train/CLASS/*.jpg")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each side")
    parser.add_argument("--quick", action="store_true", help="leave out the operations alone")
    arguments = parser.parse_args()
    small = compare(small_images(2048), _SMALL, 256, rounds=arguments.rounds, batches=8)
    _print("32 px, batches of 256 images, from PNG", small)
    large_images = photos(arguments.clothing, 256)
    large = compare(large_images, _LARGE, 32, rounds=arguments.rounds, batches=3)
    where = arguments.clothing or "made-up photos"
    _print(f"224 px, batches of 32 images, from JPEG ({where})", large)
    policy = policies.Policy(_LARGE)
    first, most = memory_growth(our_batches(large_images, policy, 32, one_size=False))
    print(f"\nmemory over 200 batches at 224 px: {first:,.0f} MiB, then at most {most:,.0f} MiB")
    if not arguments.quick:
        for size, batch in ((_SMALL, 512), (_LARGE, 32)):
            sides = each_operation(size, batch, rounds=arguments.rounds)
            _print(f"each operation alone at {size} px, all views, no tf.data", sides)
    if arguments.json:
        result = {
            "ratio_32px": round(small["ours, host"].rate / small["obvious"].rate, 3),
            "ratio_224px_jpeg": round(large["ours, host"].rate / large["obvious"].rate, 3),
            "views_per_second_32px": round(small["ours, host"].rate, 1),
            "views_per_second_224px_jpeg": round(large["ours, host"].rate, 1),
            "memory_growth_mib": round(most - first, 1),
        }
        print(json.dumps(result))


if __name__ == "__main__":
    main()
