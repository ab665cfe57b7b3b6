"""Connections between workers, which are threads here: agreement, and how one's end ends all."""

import contextlib
import re
import socket
import threading
import time

import pytest

from simclr_tf import cluster, errors, preemption, worker_sockets, workers


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(worker_sockets, "START_SECONDS", 2.0)
    monkeypatch.setattr(worker_sockets, "_PATIENT_SECONDS", 0.2)
    monkeypatch.setattr(workers, "_LEAVING_SECONDS", 0.2)
    monkeypatch.setattr(workers, "_MESSAGE_SECONDS", 1.0)


def addresses(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return tuple(f"127.0.0.1:{one.getsockname()[1]}" for one in sockets)


def together(*works, indices=None):
    """Runs a function of the connection on each worker; returns results or errors, and lines."""
    listed, results, lines = addresses(len(works)), {}, []

    def run(index, work):
        try:
            one = cluster.Cluster(listed, index)
            with workers.Connected(one, lines.append, lambda: aborted.append(index)) as connection:
                results[index] = work(connection)
        except BaseException as error:
            results[index] = error

    aborted = []
    threads = [
        threading.Thread(target=run, args=(index, work), daemon=True)
        for index, work in enumerate(works)
        if indices is None or index in indices
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    return results, lines, aborted


def test_every_worker_gets_the_values_of_all_in_their_order():
    def work(index):
        def exchanges(connection):
            time.sleep(0.05 * index)
            return [connection.exchange(index), connection.exchange({"step": 10 * index})]

        return exchanges

    results, _, aborted = together(*(work(index) for index in range(3)))
    expected = [[0, 1, 2], [{"step": 0}, {"step": 10}, {"step": 20}]]
    assert results == {0: expected, 1: expected, 2: expected}
    assert not aborted


@pytest.mark.parametrize("late", [0, 1])
def test_all_workers_end_together(late):
    listed, times = addresses(2), {}

    def run(index):
        with workers.Connected(cluster.Cluster(listed, index), print, print):
            if index == late:
                time.sleep(0.6)
                times["finished"] = time.monotonic()
        times[index] = time.monotonic()

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert times[1 - late] >= times["finished"]


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_mistake_on_one_worker_ends_all_with_its_message(failing):
    def fails(connection):
        raise errors.UserError("the disk is full")

    def waits(connection):
        connection.exchange("never complete")

    results, _, aborted = together(*(fails if i == failing else waits for i in range(3)))
    for index, error in results.items():
        assert isinstance(error, errors.UserError)
        named = "" if index == failing else rf"worker {failing} \(127\.0\.0\.1:\d+\) ended: "
        assert re.fullmatch(f"{named}the disk is full", str(error))
    assert set(aborted) == {0, 1, 2} - {failing}


def test_a_worker_that_a_signal_ends_ends_all_as_a_signal_does():
    def preempted(connection):
        raise preemption.Preempted("now")

    def waits(connection):
        connection.exchange("never complete")

    results, _, _ = together(waits, preempted)
    assert isinstance(results[0], preemption.Preempted)
    assert "has ended (by a signal). Run the same command on all workers again" in str(results[0])


def test_a_worker_whose_connection_breaks_ends_all():
    def breaks(connection):
        for peer in list(connection._peers.values()):
            peer.shutdown(socket.SHUT_RDWR)
        return connection.exchange("never complete")

    def waits(connection):
        connection.exchange("never complete")

    results, _, _ = together(waits, breaks)
    assert "Ended because worker 1 (127.0.0.1:" in str(results[0])


def test_an_error_that_follows_from_the_end_of_another_worker_is_not_reported():
    def preempted(connection):
        time.sleep(0.3)
        raise preemption.Preempted("now")

    def fails(connection):
        raise RuntimeError("Socket closed")  # TensorFlow noticed it first.

    results, _, _ = together(fails, preempted)
    assert "worker 1" in str(results[0])
    assert isinstance(results[0].__cause__, RuntimeError)


def test_a_worker_that_does_not_start_is_named_by_a_line_and_then_by_the_error():
    def work(connection):
        return connection.exchange("never complete")

    results, lines, _ = together(work, work, work, indices=(0, 1))
    assert any("Waiting up to 2 s for worker 2 (127.0.0.1:" in line for line in lines)
    assert "worker 2 (127.0.0.1:" in str(results[0])
    assert "did not connect to worker 0" in str(results[0])
    assert isinstance(results[1], errors.UserError)  # As on the chief, and not as after a signal.
    assert "did not connect to worker 0" in str(results[1])


def test_a_chief_that_does_not_start_is_named():
    def work(connection):
        raise AssertionError("not connected")

    results, _, _ = together(work, work, indices=(1,))
    assert "the chief, cannot be reached from worker 1 (127.0.0.1:" in str(results[1])


@pytest.mark.parametrize("index", [0, 1])
def test_a_port_that_is_in_use_is_refused(index):
    with socket.create_server(("", 0)) as taken:
        listed = [f"127.0.0.1:{taken.getsockname()[1]}", "127.0.0.1:1"]
        one = cluster.Cluster(tuple(listed if index == 0 else listed[::-1]), index)
        with (
            pytest.raises(errors.UserError, match=rf"Port \d+ of worker {index} .* cannot be used"),
            workers.Connected(one, print, lambda: None),
        ):
            raise AssertionError("connected")


def test_other_programs_and_other_workers_that_connect_are_refused():
    answers = []

    def intrude(port):
        for line in (b"GET / HTTP/1.1\n", b'{"worker": [1]}\n', b'{"worker": 7}\n'):
            with connected(port) as peer:
                peer.sendall(line)
                answers.append(peer.makefile("rb").read())

    def late(connection):
        return connection.exchange(1)

    listed = addresses(2)
    chief = cluster.Cluster(listed, 0)
    intruder = threading.Thread(target=intrude, args=(cluster.host_and_port(listed[0])[1],))

    def other():
        intruder.join(10)
        with workers.Connected(cluster.Cluster(listed, 1), print, print) as connection:
            late(connection)

    thread = threading.Thread(target=other, daemon=True)
    intruder.start()
    thread.start()
    with workers.Connected(chief, print, lambda: None) as connection:
        assert connection.exchange(0) == [0, 1]
    assert answers[0] == b""
    assert b"worker 7 has connected already, or is not expected" in answers[2]


def connected(port):
    """Connects to a port, on which another thread may listen a little later."""
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=10)
        except OSError:
            time.sleep(0.05)


def test_a_worker_that_cannot_stop_exits_with_the_code_of_the_error(monkeypatch):
    codes = []
    monkeypatch.setattr(workers, "_GRACE_SECONDS", 0.1)
    monkeypatch.setattr(workers.os, "_exit", codes.append)

    def fails(connection):
        raise errors.UserError("the disk is full")

    def preempted(connection):
        raise preemption.Preempted("now")

    def hangs(connection):
        time.sleep(1.0)  # As an operation of TensorFlow that is not aborted.

    together(fails, hangs)
    together(preempted, hangs)
    assert codes == [2, 143]


def test_a_single_worker_agrees_with_itself():
    assert workers.Alone().exchange(3) == [3]
    assert workers.Alone().count == 1
