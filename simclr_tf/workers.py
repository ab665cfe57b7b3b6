"""Messages between the workers of a cluster: what they agree on, and how the end of one ends all.

Every worker keeps a connection to the chief, to the address that TensorFlow uses later. TensorFlow
itself reports neither which worker is missing nor why one has ended, and operations that wait for
it may wait for minutes.
"""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import json
import os
import queue
import socket
import sys
import threading
import time
from typing import Any, Protocol

from simclr_tf import cluster as cluster_lib
from simclr_tf import errors, preemption, worker_sockets

# How long a process that waits for an ended worker may take to stop by itself.
_GRACE_SECONDS = 60.0
# How long the chief may wait at its end for the processes of the others.
_LEAVING_SECONDS = 20.0
# How long a worker, after an error of its own, waits for a message that another one had ended.
_MESSAGE_SECONDS = 2.0
# That of run.py for errors that the user can fix.
_EXIT_CODE_OF_ERROR = 2
_LOST = object()


class Workers(Protocol):
    """What a command needs of the other workers."""

    @property
    def count(self) -> int:
        """The number of workers."""

    def exchange(self, value: Any) -> list[Any]:
        """Waits for all workers, and returns the values of all, which JSON can hold."""


class Alone:
    """The only worker."""

    count = 1

    def exchange(self, value: Any) -> list[Any]:
        """Returns the value."""
        return [value]


class Connected:
    """One of several workers; used as a context, at whose end all workers have finished."""

    def __init__(
        self, cluster: cluster_lib.Cluster, say: Callable[[str], None], abort: Callable[[], None]
    ) -> None:
        """Does not connect yet.

        Args:
            cluster: the workers.
            say: prints a line for the user.
            abort: makes operations that wait for other workers fail; called by another thread.
        """
        self._cluster, self._say, self._abort = cluster, say, abort
        self._peers: dict[int, socket.socket] = {}
        self._received: dict[int, queue.SimpleQueue[Any]] = {}
        self._reason: BaseException | None = None
        self._lost, self._ended = threading.Event(), threading.Event()
        self._listeners: list[threading.Thread] = []
        self._sending = threading.Lock()

    @property
    def count(self) -> int:
        """The number of workers."""
        return len(self._cluster.addresses)

    def __enter__(self) -> Connected:
        """Connects all workers.

        Raises:
            UserError: if a worker cannot be reached, or the chief's port is in use.
        """
        try:
            if self._cluster.is_chief:
                for index, peer in worker_sockets.accept(self._cluster, self._say):
                    self._peers[index] = peer
            else:
                self._peers[0] = worker_sockets.connect(self._cluster)
        except BaseException as error:
            self._send_end(error)
            self._close()
            raise
        for index, peer in self._peers.items():
            self._received[index] = queue.SimpleQueue()
            listener = threading.Thread(
                target=self._listen, args=(index, peer), name=f"worker {index}", daemon=True
            )
            self._listeners.append(listener)
        for listener in self._listeners:
            listener.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Waits for the other workers, or sends them the reason for which this one has ended."""
        try:
            if error is None:
                self._exchange({"value": "finished", "is_last": True})
            elif isinstance(error, Exception) and self._has_lost(error):
                assert self._reason is not None
                if error is not self._reason:
                    raise self._reason from error
            else:
                self._send_end(error)
        finally:
            self._ended.set()
            self._leave()

    def exchange(self, value: Any) -> list[Any]:
        """Waits for all workers, and returns the values of all, in the order of the workers.

        Args:
            value: anything that JSON can hold.

        Raises:
            UserError: if another worker has ended because of an error.
            Preempted: if it has ended for another reason.
        """
        return self._exchange({"value": value})

    def _exchange(self, message: dict[str, Any]) -> list[Any]:
        if not self._cluster.is_chief:
            self._send(0, message)
            return self._receive(0)
        values = [message["value"], *(self._receive(index) for index in sorted(self._peers))]
        for index in self._peers:
            self._send(index, {**message, "value": values})
        return values

    def _has_lost(self, error: Exception) -> bool:
        """Returns whether an error may come from the end of another worker."""
        is_own = isinstance(error, errors.UserError)
        return self._lost.wait(0.0 if is_own else _MESSAGE_SECONDS)

    def _listen(self, index: int, peer: socket.socket) -> None:
        """Puts what a worker sends into its queue, until its process has ended."""
        may_leave = False
        with contextlib.suppress(OSError, ValueError), peer.makefile("rb") as lines:
            for line in lines:
                message = json.loads(line)
                if "ended" in message:
                    self._lose(index, message)
                else:
                    may_leave = message.get("is_last", False)
                    self._received[index].put(message["value"])
        if not may_leave:
            self._lose(index, {})

    def _lose(self, index: int, message: dict[str, Any]) -> None:
        """Ends this process, because another worker has ended.

        Args:
            index: the worker that sent it, or whose connection has ended.
            message: what it sent: why, and which worker has ended if it was another one.
        """
        if self._lost.is_set() or self._ended.is_set():
            return
        origin, why = message.get("worker", index), message.get("ended")
        name = self._cluster.name(origin)
        if message.get("is_user_error"):
            self._reason = errors.UserError(f"{name} ended: {why}")
        else:
            self._reason = preemption.Preempted(
                f"Ended because {name} has ended{f' ({why})' if why else ''}. Run the same command "
                "on all workers again to resume from the last checkpoint."
            )
        self._lost.set()
        for other in self._peers:  # The chief passes it on.
            if other != index:
                self._send(other, {"ended": why, **message, "worker": origin})
        for waiting in self._received.values():
            waiting.put(_LOST)
        with contextlib.suppress(Exception):
            self._abort()
        if not self._ended.wait(_GRACE_SECONDS):
            print(self._reason, file=sys.stderr, flush=True)
            os._exit(_EXIT_CODE_OF_ERROR if message.get("is_user_error") else preemption.EXIT_CODE)

    def _receive(self, index: int) -> list[Any]:
        value = self._received[index].get()
        if value is _LOST:
            assert self._reason is not None
            raise self._reason
        return value

    def _send(self, index: int, message: dict[str, Any]) -> None:
        # If the other one has ended, that is noticed where its messages are read.
        with contextlib.suppress(OSError), self._sending:
            worker_sockets.send(self._peers[index], message)

    def _send_end(self, error: BaseException) -> None:
        """Says why this worker has ended."""
        is_user_error = isinstance(error, errors.UserError)
        is_signal = isinstance(error, (preemption.Preempted, KeyboardInterrupt))
        text = str(error) if is_user_error else "by a signal" if is_signal else type(error).__name__
        for index in self._peers:
            self._send(index, {"ended": text, "is_user_error": is_user_error})

    def _leave(self) -> None:
        """Lets the chief end last: TensorFlow's service for all workers is in its process.

        The others keep their connections, which the system closes when their processes have ended.
        """
        if self._cluster.is_chief:
            deadline = time.monotonic() + _LEAVING_SECONDS
            for listener in self._listeners:
                listener.join(max(0.0, deadline - time.monotonic()))
            self._close()

    def _close(self) -> None:
        for peer in self._peers.values():
            worker_sockets.close(peer)
