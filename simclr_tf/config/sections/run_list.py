"""The list of the runs below a folder."""

from __future__ import annotations

import dataclasses

from simclr_tf.config.metadata import Section

_ONLY = ("mode", ("runs",))

_RUN_LIST = Section("List of runs")


@dataclasses.dataclass(frozen=True)
class RunListSettings:
    """Which runs are listed, in which order, and where the list is written to."""

    under: str | None = _RUN_LIST.setting(
        None,
        "Folder whose run directories are listed, at any depth.",
        only_with=_ONLY,
        resume="freely",
        stored=False,
        is_path=True,
    )
    sort: str = _RUN_LIST.setting(
        "name",
        "Order of the list. accuracy: the highest first. age: the last changed first.",
        choices=("name", "accuracy", "age"),
        only_with=_ONLY,
        resume="freely",
        stored=False,
    )
    filter: str | None = _RUN_LIST.setting(
        None,
        "Which runs are listed: KEY=VALUE, comma-separated, all of which must hold. A key is a "
        "setting of the run, or state, which is training, finished, stopped or failed. For example "
        "dataset=digits,objective=supcon,state=stopped. Accuracies have bounds, with >, >=, < or "
        "<=, as in 'accuracy>0.5'. Runs that cannot be read are always listed.",
        only_with=_ONLY,
        resume="freely",
        stored=False,
    )
    export_runs: str | None = _RUN_LIST.setting(
        None,
        "CSV file to write the list to: numbers that are not rounded, and all settings that differ "
        "between the listed runs.",
        only_with=_ONLY,
        resume="freely",
        stored=False,
        is_path=True,
    )
