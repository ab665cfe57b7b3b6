"""Connections between the workers of a cluster: what they agree on, and how one's end ends all.

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
from simclr_tf import errors, preemption

# How long to wait for the other workers to start: machines of a cluster may be minutes apart.
START_SECONDS = 600.0
# After how long the first message says who is missing.
_PATIENT_SECONDS = 10.0
_RETRY_SECONDS = 0.2
# How long a process that waits for an ended worker may take to stop by itself.
_GRACE_SECONDS = 60.0
# How long the chief may wait at its end for the processes of the others.
_LEAVING_SECONDS = 20.0
# How long after an error of its own a worker waits for the news that another one had ended first.
_NEWS_SECONDS = 2.0
_LOST = object()


class Workers(Protocol):
    """What a command needs of the other workers."""

    def exchange(self, value: Any) -> list[Any]:
        """Waits for all workers, and returns the values of all, which JSON can hold."""


class Alone:
    """The only worker."""

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
        self._reason: Exception | BaseException | None = None
        self._lost, self._ended = threading.Event(), threading.Event()
        self._listeners: list[threading.Thread] = []
        self._sending = threading.Lock()

    def __enter__(self) -> Connected:
        """Connects all workers.

        Raises:
            UserError: if a worker cannot be reached, or the chief's port is in use.
        """
        try:
            if self._cluster.is_chief:
                self._accept_all()
            else:
                self._peers[0] = self._connect()
        except BaseException:
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
        """Waits for the other workers, or tells them why this one has ended."""
        try:
            if error is None:
                self._exchange({"value": "finished", "is_last": True})
            elif isinstance(error, Exception) and self._has_lost(error):
                assert self._reason is not None
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
        return self._lost.wait(0.0 if is_own else _NEWS_SECONDS)

    def _accept_all(self) -> None:
        """Waits until all other workers have connected."""
        _, port = cluster_lib.host_and_port(self._cluster.addresses[0])
        count, deadline = len(self._cluster.addresses), time.monotonic() + START_SECONDS
        patient_until = time.monotonic() + _PATIENT_SECONDS
        try:
            server = _listener(port)
        except OSError as error:
            raise errors.UserError(
                f"Port {port} of {self._cluster.name(0)} cannot be used ({error.strerror}); stop "
                "the process that uses it, or give the workers another port."
            ) from error
        with server:
            while len(self._peers) < count - 1:
                with contextlib.suppress(TimeoutError):
                    self._greet(server.accept()[0])
                missing = [i for i in range(1, count) if i not in self._peers]
                names = ", ".join(map(self._cluster.name, missing))
                if missing and time.monotonic() > deadline:
                    raise errors.UserError(
                        f"{names} did not connect to {self._cluster.name(0)} within "
                        f"{START_SECONDS:.0f} s; start all workers, and check that they can reach "
                        "this address."
                    )
                if missing and time.monotonic() > patient_until:
                    patient_until = float("inf")
                    self._say(f"Waiting up to {START_SECONDS:.0f} s for {names}.")

    def _greet(self, peer: socket.socket) -> None:
        """Learns which worker has connected; others are sent away."""
        peer.settimeout(_PATIENT_SECONDS)
        try:
            index = json.loads(_read_line(peer))["worker"]
        except (OSError, ValueError, LookupError, TypeError):
            peer.close()
            return
        if index in self._peers or index not in range(1, len(self._cluster.addresses)):
            problem = f"There is another worker {index}, or none of that index is expected."
            _send_line(peer, {"ended": problem})
            peer.close()
            return
        self._peers[index] = _kept_alive(peer)

    def _connect(self) -> socket.socket:
        """Connects to the chief."""
        deadline = time.monotonic() + START_SECONDS
        reason = ""
        while time.monotonic() < deadline:
            try:
                peer = socket.create_connection(
                    cluster_lib.host_and_port(self._cluster.addresses[0]), timeout=_PATIENT_SECONDS
                )
                _send_line(peer, {"worker": self._cluster.index})
                return _kept_alive(peer)
            except OSError as error:
                reason = error.strerror or str(error)
                time.sleep(_RETRY_SECONDS)
        raise errors.UserError(
            f"{self._cluster.name(0)}, the chief, cannot be reached from worker "
            f"{self._cluster.index} within {START_SECONDS:.0f} s ({reason}); start it, and check "
            "its address."
        )

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
            index: the worker from which the news comes.
            message: what it sent: why, and which worker has ended if it was another one.
        """
        if self._lost.is_set() or self._ended.is_set():
            return
        origin, why = message.get("worker", index), message.get("ended")
        name = self._cluster.name(origin)
        if message.get("is_mistake"):
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
            os._exit(preemption.EXIT_CODE)

    def _receive(self, index: int) -> list[Any]:
        value = self._received[index].get()
        if value is _LOST:
            assert self._reason is not None
            raise self._reason
        return value

    def _send(self, index: int, message: dict[str, Any]) -> None:
        # If the other one has ended, that is noticed where its messages are read.
        with contextlib.suppress(OSError), self._sending:
            _send_line(self._peers[index], message)

    def _send_end(self, error: BaseException) -> None:
        """Says why this worker has ended."""
        is_mistake = isinstance(error, errors.UserError)
        is_signal = isinstance(error, (preemption.Preempted, KeyboardInterrupt))
        text = str(error) if is_mistake else "by a signal" if is_signal else type(error).__name__
        for index in self._peers:
            self._send(index, {"ended": text, "is_mistake": is_mistake})

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
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
            peer.close()


def _listener(port: int) -> socket.socket:
    """Returns a socket that accepts connections on a port, which TensorFlow can use after it."""
    if socket.has_dualstack_ipv6():
        server = socket.create_server(
            ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128
        )
    else:
        server = socket.create_server(("", port), backlog=128)
    server.settimeout(1.0)
    return server


def _kept_alive(peer: socket.socket) -> socket.socket:
    """Makes the system notice within a minute that the other machine is gone."""
    peer.settimeout(None)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return peer


def _send_line(peer: socket.socket, message: dict[str, Any]) -> None:
    peer.sendall(json.dumps(message).encode() + b"\n")


def _read_line(peer: socket.socket) -> bytes:
    """Reads the first line that a worker sends, which is short, and nothing beyond it."""
    line = b""
    while not line.endswith(b"\n") and len(line) < 1000:
        received = peer.recv(1)
        if not received:
            break
        line += received
    return line
