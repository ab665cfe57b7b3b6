"""Keeps the expected orders of a study as they were before its first run."""

from __future__ import annotations

import dataclasses
import datetime
import os
from typing import Any

from simclr_tf import console, storage
from simclr_tf.studies import definition

PLAN = "plan.json"


def register(study: definition.Study, folder: str) -> list[dict[str, Any]]:
    """Writes the expected orders, if they are new, and returns all that there were.

    Args:
        study: the study, none of whose runs was trained yet if this is its first call.
        folder: the folder of its results.

    Returns:
        Date, hash and orders of each version, the first one first. There is more than one if the
        orders were changed.
    """
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, PLAN)
    versions: list[dict[str, Any]] = storage.read_json(path) if os.path.exists(path) else []
    if not versions or versions[-1]["sha256"] != study.orders_hash:
        versions.append(
            {
                "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "sha256": study.orders_hash,
                "seeds": list(study.seeds),
                "orders": [dataclasses.asdict(order) for order in study.orders],
            }
        )
        storage.write_json(path, versions)
        if len(versions) > 1:
            console.warn(
                f"The expected orders of {study.name} were changed after {versions[0]['date']}; "
                "its page says so."
            )
    return versions
