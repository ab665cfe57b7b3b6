"""The memory of the machine, as far as this process may use it; found without TensorFlow."""

from __future__ import annotations

import psutil

from simclr_tf import cgroup


def free() -> int:
    """Returns the bytes that this process can still take."""
    available, limit = psutil.virtual_memory().available, cgroup.memory_limit()
    if limit is None:
        return available
    return min(available, max(0, limit - psutil.Process().memory_info().rss))


def total() -> int:
    """Returns the bytes that this process may use when nothing else does, with swap space."""
    total, limit = psutil.virtual_memory().total + psutil.swap_memory().total, cgroup.memory_limit()
    return total if limit is None else min(total, limit)
