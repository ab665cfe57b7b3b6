"""The memory limit of a container or a job, which Linux keeps in control groups."""

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
    for path in _files(root):
        # Without a limit, version 2 has the word "max", and version 1 has a very large number.
        with contextlib.suppress(OSError, ValueError):
            limits.append(int(path.read_text()))
    return min(limits, default=None)


def _files(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields the files with the limits of the groups of this process, of both versions of Linux."""
    groups = root / "proc/self/cgroup"
    with contextlib.suppress(OSError):
        for line in groups.read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if not controllers:
                top, name = root / "sys/fs/cgroup", "memory.max"
            elif "memory" in controllers.split(","):
                top, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
            else:
                continue
            # A container may see its own group as the top, whatever its name is outside.
            below = pathlib.PurePosixPath(group.lstrip("/"))
            for folder in (below, *below.parents):
                yield top / folder / name
