"""The show_views command: draws the effect of every operation on the user's images."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import console, errors, pixel_format, storage, text
from simclr_tf.commands import check_data
from simclr_tf.data import (
    crops,
    decode,
    inspection,
    operation_names,
    policies,
    shown,
    sources,
    views,
)
from simclr_tf.report import contact_sheet
from simclr_tf.runs import builders, dataset, directory
from simclr_tf.runs import pixels as pixels_lib

SHEET = "operations.png"
_IMAGES = 3  # of which each is drawn under the whole policy, and the first under each operation
_COLUMNS, _DRAWN = 6, 24


def show_views(config: config_lib.Config) -> None:
    """Draws a contact sheet: an image under each operation alone, and under the whole policy.

    Args:
        config: the settings, with data, seed and augmentation. The sheet is written to its
            model_dir, or to the current directory.

    Raises:
        UserError: if an image cannot be decoded, or the picture cannot be written.
    """
    folder = config.model_dir or "."
    directory.ensure_writable(folder)
    source = check_data.open_source(config)
    split = config.train_split
    number = source.num_examples(split)
    pixels = _pixels(config, source, split)
    policy = builders.policy_of(config, pixels)
    with console.working(f"Drawing views of {min(number, _IMAGES)} images"):
        images = [_decoded(example, pixels) for example in _first_examples(source, split)]
        rows = contact_rows(images, policy, seed=config.seed)
        rows = [
            row
            for caption, made in rows
            for row in shown.rows(caption, made, pixels, config.show_channels)
        ]
        sheet = contact_sheet.draw(rows)
    unsuited = [name for name in operation_names.OPERATIONS if not _suits(name, pixels)]
    if unsuited:
        console.say(f"Not for images of {pixels.described()}: {', '.join(unsuited)}.")
    path = os.path.join(folder, SHEET)
    storage.write_png(path, sheet)
    console.say(f"{path}: {len(rows)} rows of {config.dataset}, {config.image_size} px")


def _first_examples(source: sources.Source, split: str) -> list[dict[str, tf.Tensor]]:
    try:
        return list(source.examples(split).take(_IMAGES))
    except tf.errors.OpError as error:
        raise errors.UserError(
            f"An image of the split {split!r} cannot be read ({text.reason(error)}); restore or "
            "remove it. --mode=check_data lists all unreadable images."
        ) from error


def _suits(name: str, pixels: pixel_format.PixelFormat) -> bool:
    return operation_names.suits(name, pixels.channels)


def _pixels(
    config: config_lib.Config, source: sources.Source, split: str
) -> pixel_format.PixelFormat:
    """Returns the pixels of the images, with their scale."""
    data = dataset.Data(source, split, split)
    pixels, needs_scale = pixels_lib.settle(config, data, None)
    # Raise for channels that there are not, and operations that do not suit them.
    shown.choose(pixels, config.show_channels)
    builders.policy_of(config, pixels)
    if not needs_scale:
        return pixels
    try:
        return pixels_lib.measure(config, data, pixels)
    except tf.errors.OpError as error:
        found = inspection.first_unreadable(source.with_pixels(pixels), split)
        if found is None:
            raise
        raise errors.UserError(
            f"The image {found.name} of {split!r} {found.unreadable}; --mode=check_data lists all "
            "unreadable images."
        ) from error


def _decoded(example: dict[str, tf.Tensor], pixels: pixel_format.PixelFormat) -> np.ndarray:
    try:
        if pixels.is_rgb:
            return decode.decode_image(example["image"]).numpy()
        return crops.unit_image(example["image"], pixels).numpy()
    except tf.errors.OpError as error:
        why = inspection.why_unreadable(error, example["image"].numpy(), pixels=pixels)
        raise errors.UserError(
            f"The image {example['name'].numpy().decode()} {why}; "
            "--mode=check_data lists all unreadable images."
        ) from error


def contact_rows(
    images: list[np.ndarray], policy: policies.Policy, *, seed: int
) -> list[tuple[str, np.ndarray]]:
    """Makes the rows of a contact sheet.

    Args:
        images: (h, w, 3) uint8 each, or (h, w, c) float32 in [0, 1], of any sizes; the
            first shows the single operations.
        policy: settings of the operations; its last rows show it as a whole.
        seed: seed of the random parameters.

    Returns:
        A caption and (n, s, s, c) float32 in [0, 1] for each row.
    """
    plain = crops.evaluation_image(images[0], policy.image_size).numpy()
    rows = [("without augmentation; below, views that an operation changed", plain[np.newaxis])]
    rows.append(
        ("crop: random, then resized", _row(images[0], policy, (operation_names.CROP,), seed))
    )
    for name, about in operation_names.OPERATIONS.items():
        if not _suits(name, policy.pixels):
            continue
        rows.append((f"{name}: {about}", _row(images[0], policy, (name,), seed)))
    caption = f"the policy: {', '.join(policy.ops) or 'nothing'}"
    rows += [(caption, _row(image, policy, policy.ops, seed)) for image in images]
    return rows


def _row(image: np.ndarray, policy: policies.Policy, ops: tuple[str, ...], seed: int) -> np.ndarray:
    """Makes views of one image with some operations, (n, s, s, c), changed views first."""
    policy = dataclasses.replace(policy, ops=ops)
    plain = crops.evaluation_image(image, policy.image_size).numpy()
    seeds = tf.constant([[seed, 0], [seed, 1]])
    if operation_names.CROP in ops:
        height, width, _ = image.shape
        boxes = crops.crop_boxes(seeds[0], _DRAWN, height, width, policy)
        cropped = crops.crop_views(tf.constant(image), boxes, policy.image_size)
    else:  # As in evaluation, so that no view is distorted.
        scale = 255.0 if policy.pixels.is_rgb else 1.0
        cropped = scale * tf.repeat(plain[np.newaxis], _DRAWN, axis=0)
    made = views.distort_views(cropped[tf.newaxis], seeds[1], policy)[0].numpy()
    unchanged = np.abs(made - plain).max(axis=(1, 2, 3)) < 1 / 255
    return made[np.argsort(unchanged, kind="stable")[:_COLUMNS]]
