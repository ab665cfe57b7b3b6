"""Signals that end the program: during training, a second time, and outside of training."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

import pytest
import tiny_runs

import run
from simclr_tf import preemption
from simclr_tf.commands import check_data


def send(name: str) -> None:
    os.kill(os.getpid(), signal.Signals[name])


@pytest.fixture
def listening():
    with preemption.Preemption() as handled:
        handled.listen("TERM")
        yield handled


def test_signals_are_handled_again_after_a_library_has_replaced_the_handler(listening):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    listening.listen_again()
    with pytest.raises(preemption.Preempted), listening.training():
        send("SIGTERM")
    assert listening.requested


def test_a_signal_during_training_is_only_noted_and_ends_the_program_after_training(listening):
    steps = 0
    with (
        pytest.raises(preemption.Preempted, match="by SIGTERM after a checkpoint was saved"),
        listening.training(),
    ):
        assert not listening.requested
        send("SIGTERM")
        steps += 1  # Training continues until it asks.
    assert steps == 1
    assert listening.requested


def test_a_second_signal_ends_training_at_once(listening):
    steps = 0
    with (
        pytest.raises(preemption.Preempted, match="at once by SIGTERM"),
        listening.training(),
    ):
        send("SIGTERM")
        send("SIGTERM")
        steps += 1
    assert steps == 0


def test_training_that_no_signal_interrupts_ends_normally(listening):
    with listening.training():
        pass
    with pytest.raises(preemption.Preempted, match="at once"):  # Outside of training again.
        send("SIGTERM")


def test_an_error_of_training_is_not_hidden_by_a_signal(listening):
    with pytest.raises(ZeroDivisionError), listening.training():
        send("SIGTERM")
        raise ZeroDivisionError


def test_a_signal_whose_exception_a_library_swallows_is_sent_again(monkeypatch):
    monkeypatch.setattr(preemption, "_AGAIN_SECONDS", 0.05)
    start = time.monotonic()
    with (
        pytest.raises(preemption.Preempted, match="at once by SIGTERM"),
        preemption.Preemption() as handled,
    ):
        handled.listen("TERM")
        with contextlib.suppress(BaseException):
            send("SIGTERM")
        time.sleep(10)
    assert time.monotonic() - start < 5
    time.sleep(0.15)  # The signal is no longer sent, or it would end the tests.


def test_an_error_that_a_library_raises_because_of_a_signal_is_not_reported():
    with (
        pytest.raises(preemption.Preempted, match="at once by SIGTERM"),
        preemption.Preemption() as handled,
    ):
        handled.listen("TERM")
        try:
            send("SIGTERM")
        except BaseException as error:
            raise RuntimeError("converted") from error


def test_a_program_that_finished_its_work_in_spite_of_a_signal_ends_normally():
    with preemption.Preemption() as handled:
        handled.listen("TERM")
        with contextlib.suppress(BaseException):
            send("SIGTERM")


def test_the_handlers_of_before_are_restored():
    received = []
    before = signal.signal(signal.SIGUSR1, lambda *_: received.append(1))
    try:
        with preemption.Preemption() as handled:
            handled.listen("USR1")
        send("SIGUSR1")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert received == [1]


def test_outside_of_the_main_thread_signals_are_left_alone():
    before = signal.getsignal(signal.SIGUSR2)

    def listen():
        with preemption.Preemption() as handled:
            handled.listen("USR2")
            during.append(signal.getsignal(signal.SIGUSR2))

    during = []
    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert during == [before]


@pytest.mark.parametrize(
    ("name", "flags"), [("SIGTERM", {}), ("SIGUSR1", {"preemption_signal": "USR1"})]
)
def test_a_signal_outside_of_training_ends_the_program_with_one_line(
    photos, tmp_path, capsys, monkeypatch, name, flags
):
    monkeypatch.setattr(check_data, "check_data", lambda _: send(name))
    assert tiny_runs.main("check_data", tmp_path / "run", photos, **flags) == 143
    assert capsys.readouterr().err == (
        f"Ended at once by {name}. Run the same command again to resume from the last checkpoint.\n"
    )


def test_ctrl_c_exits_with_its_own_code(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(check_data, "check_data", lambda _: send("SIGINT"))
    # Shells make the processes that they start in the background ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert run.main(tiny_runs.arguments("check_data", tmp_path / "run", photos)) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err.startswith("Interrupted. Run the same command again")
