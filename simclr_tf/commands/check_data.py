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
        config: of which dataset, data_dir and seed are used.

    Raises:
        UserError: if an image is damaged, or the data set cannot be read.
    """
    source = open_source(config)
    damaged, odd = [], collections.Counter[str]()
    examples: dict[str, str] = {}
    for split, count in source.splits.items():
        with console.Progress(f"images of {split}", count) as progress:
            for number, finding in enumerate(inspection.inspect(source, split), 1):
                if finding.unreadable:
                    damaged.append((split, finding.name, finding.unreadable))
                for oddity in finding.unusual:
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


def open_source(config: config_lib.Config) -> sources.Source:
    """Opens the data set of a run and prints what it says of itself."""
    source = sources.open_source(config.dataset, data_dir=config.data_dir, seed=config.seed)
    for note in source.notes:
        console.say(note)
    return source
