"""Steps and learning rates: golden schedules, and the arithmetic around them."""

import json

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf import config, errors
from simclr_tf.training import schedules


@pytest.mark.parametrize("case", range(4))
def test_follows_the_golden_schedule(golden, case):
    want = json.loads((golden / "schedule.json").read_text())[case]
    plan = schedules.make_plan(
        config.Config(
            learning_rate=want["base_learning_rate"],
            learning_rate_scaling=want["scaling"],
            train_batch_size=want["batch_size"],
            train_epochs=want["epochs"],
            warmup_epochs=want["warmup_epochs"],
        ),
        want["num_examples"],
    )
    assert plan.total_steps == want["total_steps"]
    assert plan.warmup_steps == want["warmup_steps"]
    schedule = schedules.WarmupCosine(plan.peak_rate, plan.warmup_steps, plan.total_steps)
    rates = [float(schedule(tf.constant(step, tf.int64))) for step in want["steps"]]
    np.testing.assert_allclose(rates, want["learning_rates"], rtol=1e-5, atol=1e-12)


def _plan(num_examples=1000, **settings):
    defaults = {"train_batch_size": 100, "train_epochs": 5, "warmup_epochs": 1}
    return schedules.make_plan(config.Config(**{**defaults, **settings}), num_examples)


def test_steps_override_epochs_exactly():
    assert _plan(train_steps=7, warmup_epochs=0).total_steps == 7


def test_zero_epochs_are_zero_steps():
    assert _plan(train_epochs=0).total_steps == 0


def test_checkpoint_steps_override_checkpoint_epochs():
    assert _plan(checkpoint_epochs=2).checkpoint_steps == 20
    assert _plan(checkpoint_epochs=2, checkpoint_steps=3).checkpoint_steps == 3


def test_there_is_at_least_one_step_between_checkpoints():
    assert _plan(num_examples=101).checkpoint_steps == 1


def test_the_rate_after_the_end_is_zero():
    assert float(schedules.WarmupCosine(1.0, 2, 10)(tf.constant(99))) == 0


STEP = {"learning_rate_decay": "step", "decay_epochs": "2,3.5", "decay_factor": 0.2}
EXPONENTIAL = {"learning_rate_decay": "exponential", "decay_epochs": "0.5", "decay_factor": 0.97}


def _rates(steps, num_examples=1000, **settings):
    plan = _plan(num_examples, learning_rate=2.0, **settings)
    run = config.Config(**settings)
    schedule = schedules.make_schedule(run, plan)
    return [float(schedule(tf.constant(step, tf.int64))) for step in steps], plan


def _expected_rate(step, peak, warmup, decays, factor):
    """Returns the rate of a step: warm-up, then one factor for each step of `decays` reached."""
    if step < warmup:
        return peak * step / warmup
    return peak * factor ** sum(step >= decay for decay in decays)


@pytest.mark.parametrize("warmup_epochs", [0, 1, 2.5])
def test_step_decay_is_at_the_given_epochs_for_any_warmup(warmup_epochs):
    rates, plan = _rates(range(51), warmup_epochs=warmup_epochs, **STEP)
    assert plan.total_steps == 51 and plan.peak_rate == pytest.approx(2 * 100 / 256)
    warmup = int(10 * warmup_epochs)
    want = [_expected_rate(step, plan.peak_rate, warmup, [20, 35], 0.2) for step in range(51)]
    np.testing.assert_allclose(rates, want, rtol=1e-6)
    assert len(set(rates[35:])) == 1 and rates[34] == pytest.approx(5 * rates[35])


@pytest.mark.parametrize("warmup_epochs", [0, 1])
def test_exponential_decay_is_a_staircase_from_the_end_of_warmup(warmup_epochs):
    # Half an epoch of 990 images is 4.95 steps, so the stairs differ in length.
    rates, plan = _rates(range(50), 990, warmup_epochs=warmup_epochs, **EXPONENTIAL)
    warmup = 9 * warmup_epochs  # Whole steps of an epoch, which has 9.9.
    decays = [warmup + 4.95 * k for k in range(1, 20)]
    want = [_expected_rate(step, plan.peak_rate, warmup, decays, 0.97) for step in range(50)]
    np.testing.assert_allclose(rates, want, rtol=1e-6)
    assert len(set(rates[warmup:])) == len([decay for decay in decays if decay <= 49]) + 1


def test_a_long_exponential_decay_ends_at_the_rate_of_supcons_reference():
    # 0.97 per half epoch; 90 epochs minus 12 of warm-up have 156 half epochs.
    settings = {"warmup_epochs": 12, "train_epochs": 90, "train_batch_size": 6144, **EXPONENTIAL}
    rates, plan = _rates([18_767], 1_281_167, **settings)
    assert plan.total_steps == 18_768
    assert rates[0] / plan.peak_rate == pytest.approx(0.97**156, rel=1e-5)


@pytest.mark.parametrize("settings", [{}, STEP, EXPONENTIAL])
def test_get_config_recreates_the_schedule(settings):
    schedule = schedules.make_schedule(config.Config(**settings), _plan(**settings))
    again = type(schedule)(**schedule.get_config())
    for step in (0, 5, 17, 30, 49):
        assert float(again(tf.constant(step))) == float(schedule(tf.constant(step)))


def test_rejects_a_decay_epoch_after_the_end():
    with pytest.raises(errors.UserError, match=r"epoch 3.5, when training has ended .* 2 epochs"):
        _plan(train_steps=20, warmup_epochs=0, **{**STEP, "decay_epochs": "1,3.5"})


def test_square_root_and_linear_scaling_agree_at_4096():
    linear = schedules.scaled_rate(0.3, 4096, "linear")
    assert linear == pytest.approx(schedules.scaled_rate(0.075, 4096, "sqrt"))


def test_rejects_a_warmup_as_long_as_training():
    with pytest.raises(errors.UserError, match=r"Warm-up takes 50 steps .* only 20 .* below 2 or"):
        _plan(warmup_epochs=5, train_steps=20)


def test_rejects_a_batch_larger_than_the_split():
    with pytest.raises(errors.UserError, match="100 is more than the 99 images"):
        _plan(num_examples=99)
