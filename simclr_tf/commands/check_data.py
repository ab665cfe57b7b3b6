"""The check_data command: reads every image and lists what is wrong with it."""

from __future__ import annotations

import collections
import dataclasses

from simclr_tf import config as config_lib
from simclr_tf import console, errors
from simclr_tf.data import depth, first_format, inspection, layout, sources
from simclr_tf.runs import dataset

_MAX_LISTED = 100


@dataclasses.dataclass
class _Results:
    """What was found so far.

    Attributes:
        unreadable: split, name and problem of every image that cannot be used.
        unusual: number of images of every remark.
        examples: an image of every remark.
        sixteen_bit: the values that 16-bit images use; None if there are none.
        lost: sentences about classes without readable images.
        stopped: errors of splits that could not be read to their end.
    """

    unreadable: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)
    unusual: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    examples: dict[str, str] = dataclasses.field(default_factory=dict)
    sixteen_bit: depth.Range | None = None
    lost: list[str] = dataclasses.field(default_factory=list)
    stopped: list[errors.UserError] = dataclasses.field(default_factory=list)


def check_data(config: config_lib.Config) -> None:
    """Reads every image of a data set and lists what is wrong with it.

    Args:
        config: the settings, with the name of the data set.

    Raises:
        UserError: if an image is unreadable, or the data set cannot be opened.
    """
    source = open_source(config)
    first = next((split for split, count in source.splits.items() if count), "")
    pixels = first_format.find(source, first, config.channels)
    if not pixels.is_rgb:
        console.say(f"The first images have {pixels.described()}.")
    source = source.with_pixels(pixels)
    results = _Results()
    for split in source.splits:
        try:
            _check_split(source, split, results, with_pillow=dataset.has_pillow(config))
        except errors.UserError as error:
            results.stopped.append(error)
    _print(results)
    total = sum(source.splits.values())
    count = len(results.unreadable)
    if count:
        exclude = f"or exclude them with --max_bad_images={count}"
        if count <= config.max_bad_images:
            exclude = f"or train with --max_bad_images={config.max_bad_images}, which excludes them"
        results.stopped.append(
            errors.UserError(
                f"{count:,} of {total:,} images of {config.dataset} are unreadable; repair or "
                f"remove them, {exclude}."
            )
        )
    if not results.stopped:
        console.say(f"All {total:,} images of {config.dataset} are readable.")
        return
    for stopped in results.stopped[:-1]:
        console.warn(str(stopped))
    raise results.stopped[-1]


def _check_split(
    source: sources.Source, split: str, results: _Results, *, with_pillow: bool
) -> None:
    """Reads the images of a split, and adds what is wrong with them to the results."""
    before = len(results.unreadable)
    labels, readable = set[int](), set[int]()
    with console.Progress(f"images of {split}", source.splits[split]) as progress:
        findings = inspection.inspect(source, split, with_pillow=with_pillow)
        for number, finding in enumerate(findings, 1):
            labels.add(finding.label)
            if finding.unreadable:
                results.unreadable.append((split, finding.name, finding.unreadable))
            else:
                readable.add(finding.label)
            for remark in finding.unusual:
                results.unusual[remark] += 1
                results.examples.setdefault(remark, finding.name)
            if finding.sixteen_bit:
                results.sixteen_bit = finding.sixteen_bit.joined(results.sixteen_bit)
            progress.update(number, f"{len(results.unreadable) - before} unreadable")
    names = source.class_names
    if names is not None and readable - {-1} != labels - {-1}:
        present = [names[label] for label in readable if label >= 0]
        sentence = layout.missing_classes(split, present, names, what="readable images")
        results.lost.append(str(sentence))


def _print(results: _Results) -> None:
    """Prints the tables of images and the sentences about classes."""
    rows = [
        [what, f"{number:,}", results.examples[what]]
        for what, number in results.unusual.most_common()
    ]
    if rows:
        console.table("readable, but unusual", ["what", "images", "for example"], rows)
    if results.unreadable:
        rows = [list(row) for row in results.unreadable[:_MAX_LISTED]]
        console.table("unreadable", ["split", "image", "problem"], rows)
        more = len(results.unreadable) - len(rows)
        if more:
            console.say(f"... and {more:,} more.")
    too_dark = results.sixteen_bit and results.sixteen_bit.warning()
    for sentence in [*([too_dark] if too_dark else []), *results.lost]:
        console.warn(sentence)


def open_source(config: config_lib.Config) -> sources.Source:
    """Opens the data set of a run and prints its notes."""
    source = dataset.open_source(config, several_labels=True)
    for note in source.notes:
        console.say(note)
    return source
