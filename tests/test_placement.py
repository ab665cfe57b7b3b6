"""Where views are made is measured during training, and the faster place is chosen."""

import types
from typing import Any

import pytest
import tensorflow as tf

from simclr_tf import config, distribute
from simclr_tf.training import averages, placement, setup

BATCH = 10


class _Machine:
    """Makes training in two places, on a clock of its own.

    Attributes:
        made: the places that were asked for, each with its first step.
        now: the time.
    """

    def __init__(self, **seconds):
        """Takes (seconds of a step, seconds of it that wait) by place; compiling takes 100 more."""
        self.made, self.now, self._seconds = [], 0.0, seconds

    def make(self, place, step):
        self.made.append((place, step))
        compiling = [100.0]

        def train(count):
            seconds, waited = self._seconds[place]
            self.now += count * seconds + (compiling.pop() if compiling else 0)
            return averages.Sums(count, count * waited, True, {})

        return train


def _train(monkeypatch, machine, *, calls=30, start=7):
    """Trains in calls of 4 steps."""
    monkeypatch.setattr(placement.time, "monotonic", lambda: machine.now)
    trial = placement.Trial(machine.make, start, BATCH)
    for _ in range(calls):
        assert trial(4).steps == 4


def test_views_stay_on_the_host_if_training_does_not_wait(monkeypatch, capsys):
    machine = _Machine(host=(1.0, 0.1))
    _train(monkeypatch, machine)
    assert machine.made == [("host", 7)]
    assert capsys.readouterr().out == ""


# The first call compiles. Then 5 calls of 4 steps are measured.
MOVED = 7 + 6 * 4
BACK = MOVED + 6 * 4


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


def test_a_short_training_is_not_judged(monkeypatch):
    machine = _Machine(host=(0.01, 0.01))
    _train(monkeypatch, machine)  # 120 steps, in a second.
    assert machine.made == [("host", 7)]


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
    ],
)
def test_the_place_is_found_out_only_where_it_is_left_open(settings, tries):
    strategy = tf.distribute.OneDeviceStrategy("/gpu:0")
    run: Any = types.SimpleNamespace(strategy=strategy, config=config.Config(**settings))
    assert setup._tries_device(run) == tries
