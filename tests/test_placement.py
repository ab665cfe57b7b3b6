"""Where views are made is measured during training, and the faster place is chosen."""

import types
from typing import Any

import pytest
import tensorflow as tf

from simclr_tf import config, distribute, multi_worker
from simclr_tf.training import averages, placement, setup

BATCH = 10


class _Machine:
    """Makes training in two places, on a clock of its own.

    Attributes:
        made: the places that were asked for, each with its first step.
        now: the time.
    """

    def __init__(self, *, compiling=100.0, buffered=0, **seconds):
        """Creates the machine.

        Args:
            compiling: seconds that the first call of a place takes beside its steps.
            buffered: number of steps after it that do not wait.
            seconds: (seconds of a step, seconds of it that wait) by place.
        """
        self.made, self.now = [], 0.0
        self._seconds, self._compiling, self._buffered = seconds, compiling, buffered

    def make(self, place, step):
        self.made.append((place, step))
        done = 0

        def train(count):
            nonlocal done
            seconds, waited = self._seconds[place]
            waits = sum(number >= self._buffered for number in range(done, done + count))
            self.now += count * (seconds - waited) + waits * waited
            self.now += 0 if done else self._compiling
            done += count
            return averages.Sums(count, waits * waited, True, {})

        return train


def _train(monkeypatch, machine, *, calls=60, start=7, total=100_000):
    """Trains in calls of 4 steps."""
    monkeypatch.setattr(placement.time, "monotonic", lambda: machine.now)
    trial = placement.Trial(machine.make, start, total_steps=total, batch_size=BATCH)
    for _ in range(calls):
        assert trial(4).steps == 4
    assert trial.place == machine.made[-1][0]


def test_views_stay_on_the_host_if_training_does_not_wait(monkeypatch, capsys):
    machine = _Machine(host=(1.0, 0.1))
    _train(monkeypatch, machine)
    assert machine.made == [("host", 7)]
    assert capsys.readouterr().out == ""


# The first call compiles. Two windows of 5 calls of 4 steps follow.
MOVED = 7 + 11 * 4
BACK = MOVED + 11 * 4


def test_views_move_to_the_accelerator_if_it_is_faster(monkeypatch, capsys):
    machine = _Machine(host=(1.0, 0.5), device=(0.5, 0.0))
    _train(monkeypatch, machine)
    assert machine.made == [("host", 7), ("device", MOVED)]
    assert capsys.readouterr().out.splitlines() == [
        "Training waited for images during 50% of the time, so the accelerator makes the views for "
        "some steps, to compare (--augment_on=auto).",
        "Views are made on the accelerator from now on: 20 images/s on the accelerator, 10 on the "
        "host.",
    ]


def test_views_move_back_to_the_host_if_the_accelerator_is_slower(monkeypatch, capsys):
    machine = _Machine(host=(1.0, 0.5), device=(1.25, 0.0))
    _train(monkeypatch, machine)
    assert machine.made == [("host", 7), ("device", MOVED), ("host", BACK)]
    assert capsys.readouterr().out.splitlines()[1] == (
        "Views are made on the host from now on: 8 images/s on the accelerator, 10 on the host."
    )


def test_batches_that_were_made_during_compilation_do_not_count(monkeypatch, capsys):
    # In the first window no step waits, in the second 8 of 20, and in the third all. In the second
    # a step takes 0.7 s, less than on the accelerator.
    machine = _Machine(host=(1.0, 0.5), device=(0.75, 0.0), buffered=36)
    _train(monkeypatch, machine)
    assert machine.made == [("host", 7), ("device", 7 + 16 * 4)]
    assert capsys.readouterr().out.startswith("Training waited for images during 50% of the time")


def test_of_the_accelerator_too_they_do_not_count(monkeypatch):
    # With batches from memory it would take 0.5 s for a step, half of the time of the host.
    machine = _Machine(host=(1.0, 0.5), device=(1.25, 0.75), buffered=12)
    _train(monkeypatch, machine)
    assert [place for place, _ in machine.made] == ["host", "device", "host"]


def test_a_short_training_is_not_judged(monkeypatch):
    machine = _Machine(host=(0.01, 0.01), compiling=0.1)
    _train(monkeypatch, machine)  # 240 steps, in 2.4 seconds.
    assert machine.made == [("host", 7)]


@pytest.mark.parametrize(("left", "tried"), [(999, False), (1005, True)])
def test_near_its_end_training_does_not_compile_another_step(monkeypatch, left, tried):
    # The first call takes 104 s, so that at least 1,040 s must be left.
    machine = _Machine(host=(1.04, 0.5), device=(1.0, 0.0), compiling=99.84)
    _train(monkeypatch, machine, total=MOVED + left)
    assert (len(machine.made) > 1) == tried


def test_processors_are_no_accelerators():
    assert not distribute.has_accelerator(distribute.virtual_cpu_strategy(2))
    assert not distribute.has_accelerator(tf.distribute.OneDeviceStrategy("/cpu:0"))
    assert distribute.has_accelerator(tf.distribute.OneDeviceStrategy("/gpu:0"))


@pytest.mark.parametrize(
    ("settings", "tries"),
    [
        ({}, True),
        ({"augment_on": "host"}, False),
        ({"augment_on": "device"}, False),
        ({"accum_chunks": 2}, False),
        ({"deterministic": True}, False),
        ({"data_service": "grpc://host:1"}, False),
        ({"cache_dataset": True}, False),
    ],
)
def test_the_place_is_measured_only_where_it_is_left_open(settings, tries):
    strategy = tf.distribute.OneDeviceStrategy("/gpu:0")
    run: Any = types.SimpleNamespace(strategy=strategy, config=config.Config(**settings))
    assert setup._tries_device(run) == tries


def test_the_place_is_measured_only_for_an_accelerator_of_one_host(monkeypatch):
    run: Any = types.SimpleNamespace(
        strategy=tf.distribute.OneDeviceStrategy("/cpu:0"), config=config.Config()
    )
    assert not setup._tries_device(run)
    run.strategy = tf.distribute.OneDeviceStrategy("/gpu:0")
    assert setup._tries_device(run)
    # Hosts that choose differently would wait for each other forever.
    monkeypatch.setattr(multi_worker, "num_input_hosts", lambda strategy: 2)
    assert not setup._tries_device(run)
