"""Measures the views per second of the input pipeline, and compares it with a baseline.

    python benchmarks/input_pipeline.py --photos=PATH   prints tables
    python benchmarks/input_pipeline.py --json          also prints one JSON object as the last line
    python benchmarks/input_pipeline.py --smallest      takes seconds

Both pipelines make two SimCLR views of each image with the reference's settings, from encoded
bytes to batches. The baseline does what google-research/simclr does: it decodes an image once,
crops, flips and jitters each view with `tf.image`, and blurs the batch with a depthwise
convolution. The pipelines are measured in turns, so that other load on the machine affects all of
them alike. The results are medians. The CPU does all the work.

Images of 32 px are PNGs. Images of 224 px are cropped from JPEGs: the photos of a folder
train/CLASS/*.jpg (--photos), or smoothed noise of 533 x 400 pixels.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
import dataclasses
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

tf.get_logger().setLevel("ERROR")  # No warnings about the many functions traced on purpose.

_AUTOTUNE = tf.data.AUTOTUNE
_SMALL, _LARGE = 32, 224


@dataclasses.dataclass(frozen=True)
class _Amount:
    """How much a comparison measures.

    Attributes:
        images: number of encoded images, which are read again and again.
        batch_size: images in a batch.
        batches: batches in a measurement.
    """

    images: int
    batch_size: int
    batches: int


# By size of the images in pixels.
_FULL = {_SMALL: _Amount(2048, 256, 8), _LARGE: _Amount(256, 32, 3)}
_SMALLEST = {_SMALL: _Amount(8, 4, 1), _LARGE: _Amount(4, 2, 1)}
_ALL_OPERATIONS = (operation_names.CROP, *operation_names.OPERATIONS)
_OPERATION_BATCH = {_SMALL: 512, _LARGE: 32}


# --- the baseline


def baseline_view(image: tf.Tensor, size: int) -> tf.Tensor:
    """Makes one view with `tf.image` and the reference's settings, without the blur."""
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
    image = _sometimes(0.8, baseline_jitter, image)
    image = _sometimes(
        0.2, lambda x: tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(x)), image
    )
    return tf.clip_by_value(image, 0.0, 1.0)


def baseline_jitter(image: tf.Tensor) -> tf.Tensor:
    """Changes brightness, contrast, saturation and hue at strength 1, in random order."""
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
    """Applies one of four operations, with nested conditions as in the reference."""
    return tf.cond(
        which < 2,
        lambda: tf.cond(which < 1, lambda: ops[0](image), lambda: ops[1](image)),
        lambda: tf.cond(which < 3, lambda: ops[2](image), lambda: ops[3](image)),
    )


def _sometimes(probability: float, op: Callable, image: tf.Tensor) -> tf.Tensor:
    return tf.cond(tf.random.uniform([]) < probability, lambda: op(image), lambda: image)


def baseline_blur(images: tf.Tensor, size: int) -> tf.Tensor:
    """Blurs half of a batch with a depthwise convolution, all images by the same width."""
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


def baseline_batches(encoded: list[bytes], size: int, batch_size: int) -> tf.data.Dataset:
    """Returns endless batches (b, 2, s, s, 3) of the baseline."""

    def views(content: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_image(content, channels=3, expand_animations=False)
        image = tf.image.convert_image_dtype(tf.ensure_shape(image, [None, None, 3]), tf.float32)
        return tf.concat([baseline_view(image, size), baseline_view(image, size)], axis=-1)

    def split(batch: tf.Tensor) -> tf.Tensor:
        both = tf.split(batch, 2, axis=-1)
        return tf.stack([baseline_blur(images, size) for images in both], axis=1)

    stream = tf.data.Dataset.from_tensor_slices(encoded).repeat().shuffle(len(encoded))
    stream = stream.map(views, num_parallel_calls=_AUTOTUNE).batch(batch_size, drop_remainder=True)
    return stream.map(split, num_parallel_calls=_AUTOTUNE).prefetch(_AUTOTUNE)


# --- this project's pipeline


class _Memory:
    """Streams encoded images from memory, so that the speed of the disk has no influence."""

    def __init__(self, encoded: list[bytes]) -> None:
        self._encoded = encoded
        self.split_infos: dict = {}

    def examples(self, slices, *, order_seed=None, excluded=()):  # type: ignore[no-untyped-def]
        del slices, excluded
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
    def slices(self, split: str) -> list[tuple[str, int, int]]:
        return [(split, 0, self.splits[split])]


def our_batches(
    encoded: list[bytes],
    policy: policies.Policy,
    batch_size: int,
    *,
    one_size: bool,
    augment_on: str = "host",
) -> tf.data.Dataset:
    """Returns endless batches of this project's pipeline, as in training."""
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
    """Returns the function that makes a batch's views inside the training step."""

    def make(batch: dict) -> tf.Tensor:
        return pipeline.views_of_batch(batch, policy, num_views=2, total=batch_size)["views"]

    return tf.function(make, jit_compile=jit_compile)


# --- measuring


def photos(folder: str | None, count: int) -> list[bytes]:
    """Returns encoded photos: the first ones of a folder, or smoothed noise."""
    if folder:
        source = sources.open_source("image_folder", data_dir=folder, seed=0)
        return [e["image"].numpy() for e in source.examples("train").take(count)]
    rng = np.random.default_rng(0)
    encoded = []
    for _ in range(count):
        rough = tf.constant(rng.uniform(0, 255, (12, 9, 3)), tf.float32)
        image = tf.image.resize(rough, [533, 400], "bicubic") + rng.normal(0, 8, (533, 400, 3))
        image = tf.cast(tf.clip_by_value(image, 0, 255), tf.uint8)
        encoded.append(tf.io.encode_jpeg(image, quality=90).numpy())
    return encoded


def small_images(count: int) -> list[bytes]:
    """Returns smoothed noise of 32 px, encoded as PNG like the images of CIFAR-10."""
    rng = np.random.default_rng(0)
    rough = tf.constant(rng.uniform(0, 1, (count, 6, 6, 3)), tf.float32)
    images = tf.image.resize(rough, [_SMALL, _SMALL], "bicubic")
    images = tf.image.convert_image_dtype(tf.clip_by_value(images, 0, 1), tf.uint8)
    return [tf.io.encode_png(image).numpy() for image in images]


class Side:
    """One pipeline of a comparison, measured a few batches at a time."""

    def __init__(self, start: Callable[[], Iterator[tf.Tensor]], views_per_batch: int) -> None:
        """Starts a stream once, so that its graph is traced.

        Args:
            start: starts a stream of batches of views.
            views_per_batch: number of views in a batch.
        """
        self._start, self._views = start, views_per_batch
        self.rates: list[float] = []
        next(start())

    def measure(self, batches: int) -> None:
        """Measures the rate over some batches, and stores it.

        Starts a new stream, so that no batch was prepared while another pipeline was measured.
        """
        iterator = self._start()
        next(iterator)
        start = time.perf_counter()
        for _ in range(batches):
            next(iterator)
        self.rates.append(batches * self._views / (time.perf_counter() - start))

    @property
    def rate(self) -> float:
        """Median of the views per second."""
        return statistics.median(self.rates)


def take_turns(sides: dict[str, Side], *, rounds: int, batches: int) -> None:
    """Measures all pipelines in turns, several times."""
    for _ in range(rounds):
        for side in sides.values():
            side.measure(batches)


def compare(
    encoded: list[bytes], size: int, amount: _Amount, *, rounds: int, xla: bool
) -> dict[str, Side]:
    """Measures the baseline and this project's pipeline, on the host and on the device."""
    batch_size = amount.batch_size
    policy = policies.Policy(size)
    baseline = baseline_batches(encoded, size, batch_size)
    on_host, for_device = (
        our_batches(encoded, policy, batch_size, one_size=size == _SMALL, augment_on=device)
        for device in ("host", "device")
    )
    plain = on_device(policy, batch_size, jit_compile=False)
    compiled = on_device(policy, batch_size, jit_compile=True)
    starts: dict[str, Callable[[], Iterator[tf.Tensor]]] = {
        "baseline": lambda: iter(baseline),
        "ours, host": lambda: (batch["views"] for batch in on_host),
        "ours, device": lambda: (plain(batch) for batch in for_device),
    }
    if xla:
        starts["ours, device, XLA"] = lambda: (compiled(batch) for batch in for_device)
    sides = {name: Side(start, 2 * batch_size) for name, start in starts.items()}
    take_turns(sides, rounds=rounds, batches=amount.batches)
    return sides


def each_operation(
    names: Sequence[str], size: int, batch_size: int, *, rounds: int
) -> dict[str, Side]:
    """Measures each operation alone, on a batch of images in memory, without tf.data."""
    images = tf.random.stateless_uniform([batch_size, size, size, 3], [0, 1])
    seed = tf.constant([0, 1])

    def stream(ops: tuple[str, ...]) -> Callable[[], Iterator[tf.Tensor]]:
        policy = policies.Policy(size, ops=ops)
        make = tf.function(lambda: views.make_views(images, seed, policy, num_views=1))
        if operation_names.CROP not in ops:
            crops = 255.0 * images[:, tf.newaxis]
            make = tf.function(lambda: views.distort_views(crops, seed, policy))
        return lambda: iter(make, None)

    sides = {name: Side(stream((name,)), batch_size) for name in names}
    take_turns(sides, rounds=rounds, batches=1)
    return sides


def memory_growth(batches: tf.data.Dataset, count: int) -> tuple[float, float]:
    """Returns the MiB of this process after a tenth of `count` batches, and its peak after that."""
    process, sizes = psutil.Process(), []
    for number, _ in enumerate(batches.take(count)):
        if number >= count // 10:
            sizes.append(process.memory_info().rss / 2**20)
    return sizes[0], max(sizes)


def _print(title: str, sides: dict[str, Side]) -> None:
    print(f"\n{title}")
    for name, side in sides.items():
        ratio = side.rate / sides["baseline"].rate if "baseline" in sides else None
        print(f"  {name:22} {side.rate:10,.0f} views/s" + (f" {ratio:8.2f}x" if ratio else ""))


def print_operations(names: Sequence[str], batch_sizes: dict[int, int], *, rounds: int) -> None:
    """Measures operations on images of some sizes, given as {pixels: batch size}, and prints."""
    for size, batch_size in batch_sizes.items():
        sides = each_operation(names, size, batch_size, rounds=rounds)
        _print(f"each operation alone at {size} px, all views, no tf.data", sides)


def main() -> None:
    """Measures the pipelines and prints the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object as the last line")
    parser.add_argument("--photos", help="folder of photos, train/CLASS/*.jpg")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each pipeline")
    parser.add_argument("--quick", action="store_true", help="skip the single operations")
    parser.add_argument(
        "--smallest",
        action="store_true",
        help="measure a few images once, in seconds, to check that this program works",
    )
    arguments = parser.parse_args()
    rounds = 1 if arguments.smallest else arguments.rounds
    amounts = _SMALLEST if arguments.smallest else _FULL
    xla = not arguments.smallest  # It compiles for many seconds.
    small_amount, large_amount = amounts[_SMALL], amounts[_LARGE]
    encoded = small_images(small_amount.images)
    small = compare(encoded, _SMALL, small_amount, rounds=rounds, xla=xla)
    _print(f"32 px, batches of {small_amount.batch_size} images, from PNG", small)
    encoded = photos(arguments.photos, large_amount.images)
    large = compare(encoded, _LARGE, large_amount, rounds=rounds, xla=xla)
    origin = arguments.photos or "smoothed noise"
    _print(f"224 px, batches of {large_amount.batch_size} images, from JPEG ({origin})", large)
    batches = our_batches(encoded, policies.Policy(_LARGE), large_amount.batch_size, one_size=False)
    count = 10 if arguments.smallest else 200
    first, most = memory_growth(batches, count)
    print(
        f"\nmemory over {count} batches at 224 px: {first:,.0f} MiB, then at most {most:,.0f} MiB"
    )
    if arguments.smallest:
        print_operations(_ALL_OPERATIONS[:2], {_SMALL: 2}, rounds=rounds)
    elif not arguments.quick:
        print_operations(_ALL_OPERATIONS, _OPERATION_BATCH, rounds=rounds)
    if arguments.json:
        result = {
            "ratio_32px": round(small["ours, host"].rate / small["baseline"].rate, 3),
            "ratio_224px_jpeg": round(large["ours, host"].rate / large["baseline"].rate, 3),
            "views_per_second_32px": round(small["ours, host"].rate, 1),
            "views_per_second_224px_jpeg": round(large["ours, host"].rate, 1),
            "memory_growth_mib": round(most - first, 1),
        }
        print(json.dumps(result))


if __name__ == "__main__":
    main()
