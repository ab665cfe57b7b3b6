"""Looking at the data as verbs: check_data reads every image, show_views draws every operation."""

from __future__ import annotations

import collections
import dataclasses
import os

import numpy as np
import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import errors, run_directory
from simclr_tf.data import compositions, crops, decode, inspection, policies, sources, views
from simclr_tf.report import console, contact_sheet

SHEET = "operations.png"
_COLUMNS, _DRAWN = 6, 24
_MAX_LISTED = 100
# A sheet is looked at: small images are drawn larger.
_MIN_DRAWN = 96


def check_data(config: config_lib.Config) -> None:
    """Reads every image of a data set and lists what is wrong with it.

    Args:
        config: of which dataset, data_dir and seed are used.

    Raises:
        UserError: if an image is damaged, or the data set cannot be read.
    """
    source = _open(config)
    damaged, odd = [], collections.Counter[str]()
    examples: dict[str, str] = {}
    for split, count in source.splits.items():
        with console.Progress(f"images of {split}", count) as progress:
            for number, finding in enumerate(inspection.findings(source, split), 1):
                if finding.damage:
                    damaged.append((split, finding.name, finding.damage))
                for oddity in finding.oddities:
                    odd[oddity] += 1
                    examples.setdefault(oddity, finding.name)
                progress.update(number, f"{len(damaged)} damaged")
    total = sum(source.splits.values())
    rows = [[what, f"{number:,}", examples[what]] for what, number in odd.most_common()]
    if rows:
        console.scores("usable, but look at them", ["what", "images", "such as"], rows)
    if not damaged:
        console.say(f"All {total:,} images of {config.dataset} can be used.")
        return
    rows = [list(row) for row in damaged[:_MAX_LISTED]]
    console.scores("damaged", ["split", "image", "it"], rows)
    more = len(damaged) - len(rows)
    if more:
        console.say(f"... and {more:,} more.")
    raise errors.UserError(
        f"{len(damaged):,} of {total:,} images of {config.dataset} cannot be used; repair them or "
        f"take them out, or train without them by --max_bad_images={len(damaged)}."
    )


def _open(config: config_lib.Config) -> sources.Source:
    source = sources.open_source(config.dataset, data_dir=config.data_dir, seed=config.seed)
    for note in source.notes:
        console.say(note)
    return source


def show_views(config: config_lib.Config) -> None:
    """Draws a sheet: an image under each operation alone, and under the whole policy.

    Args:
        config: data, seed and views of a run; the sheet goes to its model_dir, or here.

    Raises:
        UserError: if an image cannot be decoded, or the picture not written.
    """
    folder = config.model_dir or "."
    run_directory.prepare(folder)
    source = _open(config)
    split = config.train_split
    number = source.num_examples(split)
    policy = policies.from_config(config)
    with console.working(f"drew views of {min(number, 3)} images"):
        images = [_decoded(example) for example in source.examples(split).take(3)]
        rows = contact_rows(images, policy, seed=config.seed)
        sheet = contact_sheet.draw(rows, side=max(_MIN_DRAWN, config.image_size))
    path = os.path.join(folder, SHEET)
    contact_sheet.save(path, sheet)
    console.say(f"{path}: {len(rows)} rows of {config.dataset}, {config.image_size} px")


def _decoded(example: dict[str, tf.Tensor]) -> np.ndarray:
    try:
        return decode.decode_image(example["image"]).numpy()
    except tf.errors.OpError as error:
        raise errors.UserError(
            f"The image {example['name'].numpy().decode()} {inspection.reason_of(error)}; "
            "--mode=check_data lists all that cannot be used."
        ) from error


def contact_rows(
    images: list[np.ndarray], policy: policies.Policy, *, seed: int
) -> list[tuple[str, np.ndarray]]:
    """Makes the rows of a sheet.

    Args:
        images: (h, w, 3) uint8 each, of any sizes; the first shows the operations.
        policy: whose settings the operations take, and which is shown as a whole.
        seed: of what is drawn.

    Returns:
        A caption and (n, s, s, 3) float32 in [0, 1] for each row.
    """
    plain = crops.evaluation_image(images[0], policy.image_size).numpy()
    rows = [("as evaluation sees it; below, views that an operation changed", plain[np.newaxis])]
    rows.append(("crop: random, then resized", _row(images[0], policy, (compositions.CROP,), seed)))
    for name, about in compositions.OPERATIONS.items():
        rows.append((f"{name}: {about}", _row(images[0], policy, (name,), seed)))
    told = f"the policy: {', '.join(policy.ops) or 'nothing'}"
    rows += [(told, _row(image, policy, policy.ops, seed)) for image in images]
    return rows


def _row(image: np.ndarray, policy: policies.Policy, ops: tuple[str, ...], seed: int) -> np.ndarray:
    """Makes views of one image by some operations, (n, s, s, 3), those that changed it first."""
    policy = dataclasses.replace(policy, ops=ops)
    plain = crops.evaluation_image(image, policy.image_size).numpy()
    seeds = tf.constant([[seed, 0], [seed, 1]])
    if compositions.CROP in ops:
        height, width, _ = image.shape
        boxes = crops.crop_boxes(seeds[0], _DRAWN, height, width, policy)
        cropped = crops.crop_views(tf.constant(image), boxes, policy.image_size)
    else:  # As evaluation crops it, so that no view is squeezed.
        cropped = 255.0 * tf.repeat(plain[np.newaxis], _DRAWN, axis=0)
    made = views.distort_views(cropped[tf.newaxis], seeds[1], policy)[0].numpy()
    unchanged = np.abs(made - plain).max(axis=(1, 2, 3)) < 1 / 255
    return made[np.argsort(unchanged, kind="stable")[:_COLUMNS]]
