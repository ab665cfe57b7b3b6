"""The runs command: lists the runs below a folder."""

from __future__ import annotations

from collections.abc import Sequence
import time

from simclr_tf import config as config_lib
from simclr_tf import console, errors, text
from simclr_tf.report import run_table
from simclr_tf.runs import light_files, listing, selection


def list_runs(config: config_lib.Config) -> None:
    """Prints the runs below a folder as a table, and writes them to a CSV file if one is named.

    TensorFlow is not imported unless a path is remote.

    Args:
        config: the settings, with the folder.

    Raises:
        UserError: if there is no run, none that the filter lets through, or the file cannot be
            written.
    """
    assert config.under is not None
    wanted = selection.parse_filter(config.filter)
    found = listing.find(config.under)
    if not found:
        raise errors.UserError(
            f"--under={config.under} contains no run directory; name a folder above or at the "
            "--model_dir of a run."
        )
    shown = selection.ordered(selection.filtered(found, wanted), config.sort)
    if not shown:
        raise errors.ArgumentError(
            "filter",
            config.filter,
            f"holds for none of the {text.count(len(found), 'run')} below {config.under}; leave it "
            "out to list them all.",
        )
    best = selection.best(shown)
    count = text.count(len(shown), "run")
    of_all = f" of {len(found):,}" if len(shown) < len(found) else ""
    title = f"{count}{of_all} below {config.under}"
    console.table(title, run_table.HEADER, run_table.rows(shown, best, time.time()))
    _explain(shown, best)
    if config.export_runs is not None:
        light_files.write_text(config.export_runs, run_table.to_csv(shown, best))
        console.say(f"Wrote {config.export_runs}.")


def _explain(shown: Sequence[listing.Run], best: set[str]) -> None:
    """Prints what the marks mean, and what cannot be read."""
    if best:
        console.say("* has the highest accuracy of the runs that were evaluated on its images.")
    for run in shown:
        for problem in run.problems:
            console.warn(f"{run.name}: {problem}.")
