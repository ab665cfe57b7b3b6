"""Draws whole groups of images, so that about a fraction of each class is drawn."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence


def draw(
    paths: Sequence[str],
    labels: Mapping[str, str],
    groups: Mapping[str, str],
    order: Sequence[str],
    *,
    fraction: float,
) -> set[str]:
    """Returns groups that have about a fraction of the images of each class.

    In the given order, a group is drawn if that brings the numbers of images of its classes closer
    to what is wanted, relative to that. A class of which no image was drawn then has its smallest
    group drawn. Of no class are all groups drawn.

    Args:
        paths: labelled images.
        labels: path -> name of its class.
        groups: path -> its group.
        order: the groups, in the order in which they are considered.
        fraction: the fraction of each class to draw, at least one image.
    """
    of_group: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for path in paths:
        of_group[groups[path]][labels[path]] += 1
    sizes = sum(of_group.values(), collections.Counter[str]())
    wanted = {name: max(round(fraction * size), 1) for name, size in sizes.items()}
    left = collections.Counter(name for classes in of_group.values() for name in classes)
    got, drawn = collections.Counter[str](), set[str]()

    def take(group: str) -> None:
        drawn.add(group)
        got.update(of_group[group])
        left.subtract(of_group[group].keys())

    def can_take(group: str) -> bool:
        return group not in drawn and all(left[name] > 1 for name in of_group[group])

    def gain(group: str) -> float:
        return sum(
            ((got[name] - wanted[name]) ** 2 - (got[name] + count - wanted[name]) ** 2)
            / wanted[name] ** 2
            for name, count in of_group[group].items()
        )

    for group in order:
        if can_take(group) and gain(group) > 0:
            take(group)
    for name in sizes:
        possible = [group for group in order if name in of_group[group] and can_take(group)]
        if not got[name] and possible:
            take(min(possible, key=lambda group: of_group[group].total()))
    return drawn
