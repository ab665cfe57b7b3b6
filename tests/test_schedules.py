"""Steps and learning rates: the golden ones, and the arithmetic around them."""

import json

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf import config, errors
from simclr_tf.training import schedules


@pytest.mark.parametrize("case", range(4))
def test_follows_the_golden_schedule(shared, case):
    golden = json.loads((shared / "golden" / "schedule.json").read_text())[case]
    plan = schedules.make_plan(
        config.Config(
            learning_rate=golden["base_learning_rate"],
            learning_rate_scaling=golden["scaling"],
            train_batch_size=golden["batch_size"],
            train_epochs=golden["epochs"],
            warmup_epochs=golden["warmup_epochs"],
        ),
        golden["num_examples"],
    )
    assert plan.total_steps == golden["total_steps"]
    assert plan.warmup_steps == golden["warmup_steps"]
    schedule = schedules.WarmupCosine(plan.peak_rate, plan.warmup_steps, plan.total_steps)
    rates = [float(schedule(tf.constant(step, tf.int64))) for step in golden["steps"]]
    np.testing.assert_allclose(rates, golden["learning_rates"], rtol=1e-5, atol=1e-12)


def _plan(num_examples=1000, **settings):
    defaults = {"train_batch_size": 100, "train_epochs": 5, "warmup_epochs": 1}
    return schedules.make_plan(config.Config(**{**defaults, **settings}), num_examples)


def test_steps_override_epochs_exactly():
    assert _plan(train_steps=7, warmup_epochs=0).total_steps == 7


def test_no_epochs_are_no_steps():
    assert _plan(train_epochs=0).total_steps == 0


def test_checkpoints_come_by_epochs_unless_by_steps():
    assert _plan(checkpoint_epochs=2).checkpoint_steps == 20
    assert _plan(checkpoint_epochs=2, checkpoint_steps=3).checkpoint_steps == 3


def test_a_data_set_smaller_than_half_a_batch_never_gives_zero_steps_between_checkpoints():
    assert _plan(num_examples=101).checkpoint_steps == 1


def test_the_rate_after_the_end_is_zero():
    assert float(schedules.WarmupCosine(1.0, 2, 10)(tf.constant(99))) == 0


def test_square_root_and_linear_scaling_agree_at_4096():
    linear = schedules.scaled_rate(0.3, 4096, "linear")
    assert linear == pytest.approx(schedules.scaled_rate(0.075, 4096, "sqrt"))


def test_refuses_a_warmup_as_long_as_training():
    with pytest.raises(errors.UserError, match=r"Warm-up takes 50 steps .* only 20 .* below 2 or"):
        _plan(warmup_epochs=5, train_steps=20)


def test_refuses_a_batch_larger_than_the_split():
    with pytest.raises(errors.UserError, match="100 is more than the 99 images"):
        _plan(num_examples=99)
