"""Which processes train together, and which of them this one is: the variable TF_CONFIG."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import json
import re
from typing import Any

from simclr_tf import errors

VARIABLE = "TF_CONFIG"
_EXAMPLE = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
)
_REMEDY = f"set it to something like {_EXAMPLE}, or unset it to train on one machine."


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers that train together. The first is the chief, which alone writes files.

    Attributes:
        addresses: HOST:PORT of every worker.
        index: the index of this one.
    """

    addresses: tuple[str, ...]
    index: int

    @property
    def is_chief(self) -> bool:
        """Whether this process is the chief."""
        return self.index == 0

    def name(self, index: int) -> str:
        """Returns how messages name a worker."""
        return f"worker {index} ({self.addresses[index]})"


def from_environment(environment: Mapping[str, str]) -> Cluster | None:
    """Returns the workers that TF_CONFIG describes; None if it describes one process or is not set.

    A task of type "chief" is the first worker, as TensorFlow has it.

    Raises:
        UserError: if TF_CONFIG cannot be used.
    """
    content = environment.get(VARIABLE, "")
    if not content.strip():
        return None
    try:
        described = json.loads(content)
    except json.JSONDecodeError as error:
        raise errors.UserError(f"{VARIABLE} is not JSON ({error}); {_REMEDY}") from error
    if not isinstance(described, dict):
        raise errors.UserError(f"{VARIABLE} is not a JSON object; {_REMEDY}")
    addresses, task = _addresses(described.get("cluster")), described.get("task")
    if sum(map(len, addresses.values())) <= 1:
        return None
    chiefs, workers = addresses["chief"], addresses["worker"]
    kind, index = _task(task)
    if index not in range(len(addresses[kind])):
        raise errors.UserError(
            f"{VARIABLE} gives this process the index {index}, and its cluster has "
            f"{len(addresses[kind])} of type {kind!r}, whose indices begin at 0; correct "
            '"index" in "task", or the list of addresses.'
        )
    return Cluster((*chiefs, *workers), index + (len(chiefs) if kind == "worker" else 0))


def _addresses(cluster: Any) -> dict[str, list[str]]:
    """Returns the addresses of each type of task, "chief" and "worker"."""
    found: dict[str, list[str]] = {"chief": [], "worker": []}
    if not isinstance(cluster, dict):
        if cluster is None:  # As some launchers set it for a single process.
            return found
        raise errors.UserError(f'{VARIABLE} has a "cluster" that is not an object; {_REMEDY}')
    others = sorted(set(cluster) - set(found))
    if others:
        raise errors.UserError(
            f"{VARIABLE} has tasks of type {others[0]!r}, which this program does not use; leave "
            'only "chief" and "worker" in its "cluster".'
        )
    for kind, listed in cluster.items():
        found[kind] = listed if isinstance(listed, list) else [listed]
        for address in found[kind]:
            _check_address(address)
    both = found["chief"] + found["worker"]
    repeated = [address for address in both if both.count(address) > 1]
    if repeated:
        raise errors.UserError(
            f"{VARIABLE} has the address {repeated[0]} more than once; give every worker a port "
            "of its own."
        )
    return found


def _check_address(address: Any) -> None:
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:/\s]+):([0-9]{1,5})", str(address))
    if match is None or not 0 < int(match[2]) < 2**16:
        raise errors.UserError(
            f"{VARIABLE} has the address {address!r}, which is not HOST:PORT; {_REMEDY}"
        )


def _task(task: Any) -> tuple[str, int]:
    """Returns the type and the index of this process."""
    task = task if isinstance(task, dict) else {}
    kind, index = task.get("type", "worker"), task.get("index")
    if kind not in ("chief", "worker"):
        raise errors.UserError(
            f'{VARIABLE} gives this process the type {kind!r}; it must be "worker" or "chief".'
        )
    try:
        return kind, int(index)
    except (TypeError, ValueError) as error:
        raise errors.UserError(
            f'{VARIABLE} does not say which of the workers this process is ("index" in "task" is '
            f"{index!r}); {_REMEDY}"
        ) from error


def host_and_port(address: str) -> tuple[str, int]:
    """Returns the two parts of an address."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def to_variable(addresses: list[str], index: int) -> str:
    """Returns the TF_CONFIG of a worker."""
    return json.dumps(
        {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    )
