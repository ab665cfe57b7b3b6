"""Checks that the data of a study can be opened, before any of its cells is trained."""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses

from simclr_tf import errors
from simclr_tf.runs import dataset
from simclr_tf.studies import cells

# What decides whether the data of a run can be opened. The seed does not: it chooses among images,
# but not whether there are any.
_SETTINGS = (
    *("dataset", "data_dir", "labels", "group", "image_key", "label_key", "train_split"),
    *("eval_split", "mode", "resolved_objective", "reads_labels", "samples_per_class"),
    *("labels_per_class", "label_fraction", "data_service"),
)


def check(runs: Iterable[cells.Run], root: str) -> None:
    """Opens the data of runs, each distinct data once.

    Args:
        runs: the runs.
        root: the folder of all studies.

    Raises:
        UserError: if data cannot be opened, or lacks a split or labels: what the run itself would
            print, if it is one that refuses that.
    """
    opened = set()
    for run in runs:
        # Whether images fit in memory is for each run to say, at the time when it starts.
        config = dataclasses.replace(run.config(root), cache_dataset=False)
        is_given = "eval_split" in run.flags
        key = (is_given, *(getattr(config, name) for name in _SETTINGS))
        if key not in opened:
            opened.add(key)
            data = dataset.open_data(config, eval_split_given=is_given, several_labels=True)
            if config.mode != "train":
                _check_labels(data)


def _check_labels(data: dataset.Data) -> None:
    """Refuses data of cells that cannot be evaluated on labels."""
    if data.source.several_labels:
        raise errors.UserError(
            f"The images of {data.source.name!r} may have several labels, and a study compares "
            "accuracies of one; use images with one label each."
        )
    for split in (data.train_split, data.eval_split):
        missing = data.why_unlabelled(split)
        if missing is not None:
            raise errors.UserError(
                f"{missing}, and a study compares accuracies; use images with labels."
            )
