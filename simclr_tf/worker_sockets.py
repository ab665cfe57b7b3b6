"""The connections of all workers to the chief: how they are made, and how messages are sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import json
import socket
import time
from typing import Any

from simclr_tf import cluster as cluster_lib
from simclr_tf import errors

# How long to wait for the other workers to start: machines of a cluster may be minutes apart.
START_SECONDS = 600.0
# After how long the first message says which workers are missing.
_PATIENT_SECONDS = 10.0
_RETRY_SECONDS = 0.2


def accept(
    cluster: cluster_lib.Cluster, say: Callable[[str], None]
) -> Iterator[tuple[int, socket.socket]]:
    """Waits until all other workers have connected to this one, the chief.

    Args:
        cluster: the workers.
        say: prints a line for the user.

    Yields:
        The index and the connection of each.

    Raises:
        UserError: if the port is in use, or a worker does not connect.
    """
    missing = set(range(1, len(cluster.addresses)))
    start, has_said = time.monotonic(), False
    with _listening(cluster) as server:
        while missing:
            with contextlib.suppress(TimeoutError):
                peer = server.accept()[0]
                index = _greeted(peer, missing)
                if index is not None:
                    missing.remove(index)
                    yield index, _kept_alive(peer)
            names = ", ".join(cluster.name(index) for index in sorted(missing))
            waited = time.monotonic() - start
            if missing and waited > START_SECONDS:
                raise errors.UserError(
                    f"{names} did not connect to {cluster.name(0)} within {START_SECONDS:.0f} s; "
                    "start all workers, and check that they can reach this address."
                )
            if missing and waited > _PATIENT_SECONDS and not has_said:
                has_said = True
                say(f"Waiting up to {START_SECONDS:.0f} s for {names}.")


def connect(cluster: cluster_lib.Cluster) -> socket.socket:
    """Connects this worker to the chief.

    Args:
        cluster: the workers.

    Raises:
        UserError: if this worker's own port is in use, or the chief cannot be reached.
    """
    with _listening(cluster):
        pass  # TensorFlow's error for a port in use would not name it.
    start, reason = time.monotonic(), ""
    while time.monotonic() - start < START_SECONDS:
        try:
            peer = socket.create_connection(
                cluster_lib.host_and_port(cluster.addresses[0]), timeout=_PATIENT_SECONDS
            )
            send(peer, {"worker": cluster.index})
            return _kept_alive(peer)
        except OSError as error:
            reason = error.strerror or str(error)
            time.sleep(_RETRY_SECONDS)
    raise errors.UserError(
        f"{cluster.name(0)}, the chief, cannot be reached from {cluster.name(cluster.index)} "
        f"within {START_SECONDS:.0f} s ({reason}); start it, and check its address."
    )


def send(peer: socket.socket, message: dict[str, Any]) -> None:
    """Sends a message, which is a line of JSON."""
    peer.sendall(json.dumps(message).encode() + b"\n")


def close(peer: socket.socket) -> None:
    """Closes a connection, also for a thread that waits for its messages."""
    with contextlib.suppress(OSError):
        peer.shutdown(socket.SHUT_RDWR)
    peer.close()


def _listening(cluster: cluster_lib.Cluster) -> socket.socket:
    """Returns a socket that accepts connections on this worker's port.

    TensorFlow can use the port after it.

    Raises:
        UserError: if the port is in use.
    """
    _, port = cluster_lib.host_and_port(cluster.addresses[cluster.index])
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        server = socket.create_server(("", port), family=family, dualstack_ipv6=both, backlog=128)
    except OSError as error:
        raise errors.UserError(
            f"Port {port} of {cluster.name(cluster.index)} cannot be used ({error.strerror}); stop "
            "the process that uses it, or give the workers another port."
        ) from error
    server.settimeout(1.0)
    return server


def _greeted(peer: socket.socket, expected: set[int]) -> int | None:
    """Returns the index of a worker that has connected; None, and closes it, if it is another."""
    peer.settimeout(_PATIENT_SECONDS)
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        index = json.loads(_first_line(peer))["worker"]
        if index in expected:
            return index
        send(peer, {"ended": f"worker {index} has connected already, or is not expected"})
    peer.close()
    return None


def _first_line(peer: socket.socket) -> bytes:
    """Returns the first line that a worker sends, which is short, and reads nothing beyond it."""
    line = b""
    while not line.endswith(b"\n") and len(line) < 1000:
        received = peer.recv(1)
        if not received:
            break
        line += received
    return line


def _kept_alive(peer: socket.socket) -> socket.socket:
    """Makes the system notice within a minute that the other machine has gone."""
    peer.settimeout(None)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return peer
