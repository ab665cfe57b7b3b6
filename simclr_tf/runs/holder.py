"""The process that holds the lock of a run directory, and whether it is running."""

from __future__ import annotations

import dataclasses
import datetime
import json
import platform

import psutil

# Of locks by earlier versions of this program: the creation time of a process follows the system
# clock, which may be corrected by some seconds.
_CLOCK_SECONDS = 5.0
# The system counts the time since its start in hundredths of a second.
_TICKS_SECONDS = 0.05


@dataclasses.dataclass(frozen=True)
class Holder:
    """The process that holds a lock. Two are equal if they are the same process.

    Attributes:
        host: name of its machine.
        pid: its process id there.
        created: when it was created, in seconds since 1970.
        started: when it took the lock, for messages.
        since_boot: when it was created, in seconds since its machine was started. Process ids are
            reused, so this is compared, too: unlike `created`, it does not change if the clock is
            set. None in locks by earlier versions.
        beats: how often it has renewed the lock. None in locks by earlier versions, which do not
            renew them.
    """

    host: str
    pid: int
    created: float
    started: str
    since_boot: float | None = None
    beats: int | None = dataclasses.field(default=None, compare=False)

    def __str__(self) -> str:
        """Describes the process in a message."""
        return f"process {self.pid} on {self.host}, started at {self.started}"

    def is_here(self) -> bool:
        """Returns whether it is a process of this host."""
        return self.host == platform.node()

    def is_running(self) -> bool:
        """Returns whether the process, which is one of this host, is running."""
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            if self.since_boot is None:
                return abs(process.create_time() - self.created) < _CLOCK_SECONDS
            return abs(_since_boot(process) - self.since_boot) < _TICKS_SECONDS
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True

    def unchanged(self, found: Holder | None) -> bool:
        """Returns whether a lock that is read later is that of this process and not renewed."""
        return found == self and found.beats == self.beats

    def renewed(self) -> Holder:
        """Returns the holder of the lock after another renewal."""
        return dataclasses.replace(self, beats=(self.beats or 0) + 1)

    def to_json(self) -> str:
        """Returns the content of a lock file."""
        return json.dumps(dataclasses.asdict(self)) + "\n"


def this_process() -> Holder:
    """Returns this process as the holder of a new lock."""
    process = psutil.Process()
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    created = process.create_time()
    return Holder(platform.node(), process.pid, created, now, _since_boot(process), 0)


def from_json(content: str) -> Holder:
    """Returns the process that a lock file names.

    Raises:
        ValueError: if it does not name one.
        TypeError: likewise.
    """
    return Holder(**json.loads(content))


def _since_boot(process: psutil.Process) -> float:
    # Both follow the system clock, so their difference does not.
    return process.create_time() - psutil.boot_time()
