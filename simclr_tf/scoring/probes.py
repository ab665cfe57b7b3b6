"""Makes the images of the probes (SimCLR, table 3), and runs the network on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import zlib

import numpy as np
import tensorflow as tf

from simclr_tf import console
from simclr_tf.data import jitter, random, tones
from simclr_tf.evaluation import features, forward, outcome
from simclr_tf.evaluation import probes as probes_lib
from simclr_tf.scoring import network

# At most so many images of the training and of the evaluation split.
_TRAIN_EXAMPLES, _TEST_EXAMPLES = 5000, 2000
# In training, a fifth of the views is grey; the paper's chance of 80% is that of such views.
_GREY = 0.2
_NOISE = 0.1  # Standard deviation, of pixels from 0 to 1.
_NOISE_PURPOSE = 71

# Changes (b, 3, h, w) images. The labels (b,) say how, the positions (b,) which images they are.
Change = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, int], tf.Tensor]


def _grey(images: tf.Tensor, *_: object) -> tf.Tensor:
    return tf.repeat(jitter.grey(images), 3, axis=1)


def _add_noise(images: tf.Tensor, _: tf.Tensor, positions: tf.Tensor, seed: int) -> tf.Tensor:
    shape = images.shape[1:]

    def noise_of(position: tf.Tensor) -> tf.Tensor:
        return random.normal(random.derive_seed(seed, _NOISE_PURPOSE, position), shape)

    noise = tf.map_fn(noise_of, positions, fn_output_signature=tf.float32)
    return tones.add_noise(images, _NOISE * noise)


def _sobel(images: tf.Tensor, *_: object) -> tf.Tensor:
    return tones.sobel(images)


def _rotate(images: tf.Tensor, labels: tf.Tensor, *_: object) -> tf.Tensor:
    """Rotates each image by its label times 90 degrees, counter-clockwise."""
    rows_first, columns_first = images[:, :, ::-1], tf.transpose(images, [0, 1, 3, 2])
    turned = [images, columns_first[:, :, ::-1], rows_first[..., ::-1], columns_first[..., ::-1]]
    return tf.gather(tf.stack(turned, 1), labels, axis=1, batch_dims=1)


# Name of a task -> what is distinguished, the probabilities of the answers, and what makes the
# images of all answers but the first.
_TASKS: Mapping[str, tuple[str, tuple[float, ...], Change]] = {
    "color": ("colour or grey", (1 - _GREY, _GREY), _grey),
    "rotation": ("rotation by 0, 90, 180, 270", (0.25, 0.25, 0.25, 0.25), _rotate),
    "noise": ("original or with noise", (0.5, 0.5), _add_noise),
    "sobel": ("original or Sobel-filtered", (0.5, 0.5), _sobel),
}


def answers(name: str, count: int, split: str, seed: int) -> np.ndarray:
    """Returns what is done to each of `count` images of a split, (count,) int32.

    Args:
        name: name of the task.
        count: number of images.
        split: name of the split.
        seed: seed of the run.
    """
    probabilities = _TASKS[name][1]
    generator = np.random.default_rng([seed, zlib.crc32(f"{name} {split}".encode())])
    return generator.choice(len(probabilities), size=count, p=probabilities).astype(np.int32)


def changed(
    name: str, images: tf.Tensor, labels: tf.Tensor, positions: tf.Tensor, seed: int
) -> tf.Tensor:
    """Returns images (b, h, w, 3) of a task, changed as their labels say.

    Args:
        name: name of the task.
        images: (b, h, w, 3) float32 in [0, 1].
        labels: (b,) what is done to each.
        positions: (b,) of the images in their split.
        seed: seed of the run.
    """
    planes = tf.transpose(images, [0, 3, 1, 2])
    result = tf.where(
        labels[:, tf.newaxis, tf.newaxis, tf.newaxis] > 0,
        _TASKS[name][2](planes, labels, positions, seed),
        planes,
    )
    return tf.transpose(result, [0, 2, 3, 1])


def measure(context: network.Context) -> outcome.Outcome:
    """Measures what h and g(h) know of what was done to the images."""
    tasks = [_task(context, name) for name in _TASKS]
    with console.Progress("fits of probes", len(tasks)) as progress:
        return probes_lib.evaluate(tasks, seed=context.run.config.seed, progress=progress.update)


def _task(context: network.Context, name: str) -> probes_lib.Task:
    data = context.run.data
    train, train_labels = _representations(context, name, data.train_split, _TRAIN_EXAMPLES)
    test, test_labels = _representations(context, name, data.eval_split, _TEST_EXAMPLES)
    return probes_lib.Task(name, _TASKS[name][0], train, train_labels, test, test_labels)


def _representations(
    context: network.Context, name: str, split: str, limit: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns h and g(h) of changed images of a split, and what was done to each."""
    run, seed = context.run, context.run.config.seed
    labels = answers(name, run.data.source.num_examples(split), split, seed)

    def change(images: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
        of_images = tf.gather(labels, tf.maximum(positions, 0))  # Padding has the position -1.
        return changed(name, images, of_images, positions, seed)

    found = features.extract(
        forward.Forward(
            context.model, run.strategy, forward.Outputs(projection=True), change=change
        ),
        run.data.source,
        split,
        batch_size=run.config.eval_batch_size,
        limit=limit,
        progress=f"{name} probe",
    )
    assert found.projection is not None
    representations = {probes_lib.FEATURES: found.features}
    if run.architecture.proj_head_mode != "none":
        representations[probes_lib.PROJECTION] = found.projection
    return representations, labels[found.positions]
