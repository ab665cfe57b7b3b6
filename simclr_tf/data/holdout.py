"""Holds out a tenth of each class, where a data set has no labelled images to evaluate on."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
import hashlib

from simclr_tf.data import grouped_draw, split_names

HELD_OUT = "validation"
# For folders that have an unlabelled split of that name.
_OTHER_NAME = "held_out"
_FRACTION = 0.1


def path_hash(path: str) -> bytes:
    """Returns the hash by which paths are ordered and drawn."""
    return hashlib.blake2b(path.encode(), digest_size=16).digest()


def ensure_evaluation(
    splits: Mapping[str, list[str]],
    labels: Mapping[str, str],
    *,
    seed: int,
    groups: Mapping[str, str] | None = None,
) -> tuple[dict[str, list[str]], list[str]]:
    """Holds out some of the training images if no split to evaluate on has labels.

    Splits without any to evaluate on, labelled or not, stay as they are.

    Args:
        splits: split -> its paths.
        labels: path -> name of its class; a split has labels for all of its images or for none.
        seed: seed of the draw.
        groups: path -> its group, see `hold_out`.

    Returns:
        The splits, and sentences on what was held out.
    """
    splits = dict(splits)
    evaluated = split_names.for_evaluation(splits)
    train = split_names.find("train", splits)
    labelled = {split for split, paths in splits.items() if paths[0] in labels}
    if not evaluated or labelled & set(evaluated) or train not in labelled:
        return splits, []
    if len(set(labels.values())) == 1:  # Which is not a label.
        return splits, []
    name = _OTHER_NAME if HELD_OUT in splits else HELD_OUT
    parts, note = hold_out(splits[train], labels, seed=seed, train=train, name=name, groups=groups)
    unlabelled = " and ".join(map(repr, evaluated))
    plural = "have" if len(evaluated) > 1 else "has"
    note = f"{note.removesuffix('.')}, because {unlabelled} {plural} no labels to evaluate on."
    return {**splits, **parts}, [note]


def hold_out(
    paths: Sequence[str],
    labels: Mapping[str, str],
    *,
    seed: int,
    train: str = "train",
    name: str = HELD_OUT,
    groups: Mapping[str, str] | None = None,
) -> tuple[dict[str, list[str]], str]:
    """Holds out a tenth of each class, but at least one image of a class that has several.

    Args:
        paths: labelled images.
        labels: path -> name of its class.
        seed: seed of the draw.
        train: the split of the images that remain.
        name: the split of those that are held out.
        groups: path -> its group; whole groups are held out, so that none is in both splits. None
            if images are independent.

    Returns:
        Split -> its paths, without `name` if nothing could be held out; and a sentence on it.
    """
    if groups is not None:
        return _hold_out_groups(paths, labels, groups, seed=seed, train=train, name=name)
    by_class = collections.defaultdict(list)
    for path in paths:
        by_class[labels[path]].append(path)
    kept: list[str] = []
    held: list[str] = []
    for of_class in by_class.values():
        count = max(round(_FRACTION * len(of_class)), 1) if len(of_class) > 1 else 0
        drawn = sorted(of_class, key=lambda path: path_hash(f"{seed}/{path}"))
        held += drawn[:count]
        kept += drawn[count:]
    sizes = [len(of_class) for of_class in by_class.values()]
    if not held:
        each = f"each of the {len(sizes):,} classes" if len(sizes) > 1 else "the class"
        return {train: kept}, f"Held out no images of {train!r}, because {each} has only one."
    least = "" if min(size for size in sizes if size > 1) >= 10 else " (at least one)"
    several = " with several images," if min(sizes) == 1 else ""
    note = (
        f"Held out {len(held):,} of {len(paths):,} images, a tenth{least} of each class{several} "
        f"drawn with seed {seed}, as the split {name!r}."
    )
    return {train: kept, name: held}, note


def _hold_out_groups(
    paths: Sequence[str],
    labels: Mapping[str, str],
    groups: Mapping[str, str],
    *,
    seed: int,
    train: str,
    name: str,
) -> tuple[dict[str, list[str]], str]:
    """Holds out whole groups, which have about a tenth of each class."""
    order = sorted({groups[path] for path in paths}, key=lambda group: path_hash(f"{seed}/{group}"))
    drawn = grouped_draw.draw(paths, labels, groups, order, fraction=_FRACTION)
    if not drawn:
        return {train: list(paths)}, (
            f"Held out no images of {train!r}, because all images of a class are in one of the "
            f"{len(order):,} groups."
        )
    kept = [path for path in paths if groups[path] not in drawn]
    held = [path for path in paths if groups[path] in drawn]
    note = (
        f"Held out {len(held):,} of {len(paths):,} images, {len(drawn):,} of {len(order):,} "
        f"groups with about a tenth of each class, drawn with seed {seed}, as the split {name!r}."
    )
    return {train: kept, name: held}, note
