"""The limits of a container or a job, which Linux keeps in control groups."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import pathlib


def memory_limit(root: pathlib.Path = pathlib.Path("/")) -> int | None:
    """Returns how many bytes this process may use, or None if there is no limit.

    Args:
        root: the folder that contains proc/ and sys/.
    """
    limits = []
    for path in _files(root, "memory", "memory.max", "memory.limit_in_bytes"):
        # Without a limit, version 2 has the word "max", and version 1 has a very large number.
        with contextlib.suppress(OSError, ValueError):
            limits.append(int(path.read_text()))
    return min(limits, default=None)


def cpu_quota(root: pathlib.Path = pathlib.Path("/")) -> float | None:
    """Returns the time of how many cores this process may use, or None if there is no limit.

    Args:
        root: the folder that contains proc/ and sys/.
    """
    quotas = []
    for path in _files(root, "cpu", "cpu.max", "cpu.cfs_quota_us"):
        # Without a limit, version 2 has the word "max", and version 1 has -1.
        with contextlib.suppress(OSError, ValueError):
            quota, *period = path.read_text().split()
            period = period or [path.with_name("cpu.cfs_period_us").read_text()]
            if int(quota) > 0:
                quotas.append(int(quota) / int(period[0]))
    return min(quotas, default=None)


def _files(root: pathlib.Path, controller: str, file: str, old_file: str) -> Iterator[pathlib.Path]:
    """Yields the files with a limit of the groups of this process.

    Args:
        root: the folder that contains proc/ and sys/.
        controller: what is limited.
        file: name of the file in version 2 of control groups.
        old_file: its name in version 1.
    """
    groups = root / "proc/self/cgroup"
    with contextlib.suppress(OSError):
        for line in groups.read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if not controllers:
                top, name = root / "sys/fs/cgroup", file
            elif controller in controllers.split(","):
                top, name = root / "sys/fs/cgroup" / controller, old_file
            else:
                continue
            # A container may see its own group as the top, whatever its name is outside.
            below = pathlib.PurePosixPath(group.lstrip("/"))
            for folder in (below, *below.parents):
                yield top / folder / name
