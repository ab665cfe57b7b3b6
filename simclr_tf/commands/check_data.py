"""The check_data command: reads every image and lists what is wrong with it."""

from __future__ import annotations

import collections

from simclr_tf import config as config_lib
from simclr_tf import console, errors
from simclr_tf.data import inspection, sources

_MAX_LISTED = 100


def check_data(config: config_lib.Config) -> None:
    """Reads every image of a data set and lists what is wrong with it.

    Args:
        config: the settings, with the name of the data set.

    Raises:
        UserError: if an image is unreadable, or the data set cannot be opened.
    """
    source = open_source(config)
    unreadable: list[tuple[str, str, str]] = []
    unusual = collections.Counter[str]()
    examples: dict[str, str] = {}
    for split, count in source.splits.items():
        before = len(unreadable)
        with console.Progress(f"images of {split}", count) as progress:
            for number, finding in enumerate(inspection.inspect(source, split), 1):
                if finding.unreadable:
                    unreadable.append((split, finding.name, finding.unreadable))
                for remark in finding.unusual:
                    unusual[remark] += 1
                    examples.setdefault(remark, finding.name)
                progress.update(number, f"{len(unreadable) - before} unreadable")
    total = sum(source.splits.values())
    rows = [[what, f"{number:,}", examples[what]] for what, number in unusual.most_common()]
    if rows:
        console.table("readable, but unusual", ["what", "images", "for example"], rows)
    if not unreadable:
        console.say(f"All {total:,} images of {config.dataset} are readable.")
        return
    rows = [list(row) for row in unreadable[:_MAX_LISTED]]
    console.table("unreadable", ["split", "image", "problem"], rows)
    more = len(unreadable) - len(rows)
    if more:
        console.say(f"... and {more:,} more.")
    raise errors.UserError(
        f"{len(unreadable):,} of {total:,} images of {config.dataset} are unreadable; repair or "
        f"remove them, or exclude them with --max_bad_images={len(unreadable)}."
    )


def open_source(config: config_lib.Config) -> sources.Source:
    """Opens the data set of a run and prints its notes."""
    source = sources.open_source(config.dataset, data_dir=config.data_dir, seed=config.seed)
    for note in source.notes:
        console.say(note)
    return source
