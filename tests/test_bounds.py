"""Every number has bounds: what is beyond them is refused in a sentence, what is within works."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tiny_runs

import run
from simclr_tf import config, errors
from simclr_tf.config import flagfile, metadata
from simclr_tf.data import mixing
from simclr_tf.losses import contrastive
from simclr_tf.training import schedules

TYPES = flagfile.types(config.Config)
NUMBERS = [f for f in dataclasses.fields(config.Config) if TYPES[f.name] in (int, float)]
# Each of these gave a traceback, or a run that does not end.
IMPOSSIBLE = {
    "image_size": 10**6,
    "num_views": 10**6,
    "eval_batch_size": 10**12,
    "train_batch_size": 10**12,
    "width_multiplier": 10**6,
    "num_proj_layers": 10**6,
    "proj_out_dim": 10**12,
    "warmup_epochs": 1e308,
    "randaugment_layers": 10**9,
    "supcon_positives": 10**18,
    "mixup": 1e-308,
    "cutmix": 1e-308,
    "num_virtual_cpus": 10**6,
    "linear_eval_examples": 10**30,
    "keep_checkpoint_max": 10**30,
    "train_steps": 10**30,
    "learning_rate": 1e308,
    "temperature": 1e-308,
    "distillation_temperature": 1e-308,
}


def described(field: dataclasses.Field) -> metadata.Setting:
    return metadata.describe(field)


def allowed(field: dataclasses.Field, value: float) -> bool:
    """Returns whether the description of a setting allows a value."""
    setting = described(field)
    if setting.zero_is_off and value == 0:
        return True
    return setting.at_least <= value <= setting.at_most


@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.name)
def test_every_number_has_bounds_that_its_defaults_keep(field):
    setting = described(field)
    assert setting.at_least is not None and setting.at_most is not None
    assert setting.at_least < setting.at_most < math.inf
    assert allowed(field, field.default)
    assert setting.fine_tuning is None or allowed(field, setting.fine_tuning)


def extremes(field: dataclasses.Field) -> list[Any]:
    """Returns values beyond all bounds, at them and next to them."""
    low, high = described(field).at_least, described(field).at_most
    if TYPES[field.name] is int:
        return [low - 1, low, high, high + 1, -(10**30), 10**30, 2**31, 2**63]
    beside = [math.nextafter(low, -math.inf), math.nextafter(high, math.inf)]
    tiny = [0.0, 1e-308, -1e-308]
    return [*beside, float(low), float(high), *tiny, 1e308, -1e308, math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.name)
def test_a_number_beyond_its_bounds_is_refused_in_a_sentence(field):
    for value in extremes(field):
        changed: dict[str, Any] = {field.name: value}
        try:
            config.validate(config.Config(**changed))
            message = ""
        except errors.UserError as error:
            message = str(error)
        beyond = message.startswith(f"--{field.name} must be ")
        assert beyond == (not allowed(field, value)), (value, message)
        if beyond:
            assert message.endswith(f", got {value}.")
            bounds = {described(field).at_least, described(field).at_most}
            assert any(str(bound) in message for bound in bounds)


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_an_impossible_number_is_refused_by_the_program(name, photos, tmp_path, capsys):
    changes: dict[str, Any] = {name: IMPOSSIBLE[name]}
    assert tiny_runs.main("pretrain", tmp_path / "run", photos, **changes) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: --{name} must be ") and message.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_number_of_epochs_that_takes_too_many_steps_is_refused():
    with pytest.raises(errors.UserError, match="--train_epochs=1000000 takes 1,000,000,000,001 "):
        schedules.make_plan(config.Config(train_epochs=10**6, train_batch_size=2), 2 * 10**6)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_the_weights_of_mixed_images_are_numbers_at_the_bounds(name):
    (field,) = [field for field in NUMBERS if field.name == name]
    for alpha in (described(field).at_least, described(field).at_most):
        for seed in range(4):
            weight = getattr(mixing, name)(
                tf.zeros([2, 4, 4, 3]), tf.constant([0, 1]), tf.constant([seed, 0]), alpha=alpha
            ).weight
            assert 0 <= float(weight) <= 1


@pytest.mark.parametrize("normalized", [True, False])
def test_loss_and_gradient_are_finite_at_the_bounds_of_the_temperature(normalized):
    (field,) = [field for field in NUMBERS if field.name == "temperature"]
    z = tf.constant(np.random.default_rng(0).normal(size=(2, 8, 4)), tf.float32)
    for temperature in (described(field).at_least, described(field).at_most):
        with tf.GradientTape() as tape:
            tape.watch(z)
            loss = contrastive.nt_xent(z, temperature=temperature, l2_normalize=normalized)
        assert np.isfinite(loss)
        assert np.all(np.isfinite(tape.gradient(loss, z)))


@pytest.mark.exhaustive
def test_the_largest_counts_work(photos, tmp_path, no_export):
    names = [
        "checkpoint_steps",
        "checkpoint_epochs",
        "train_summary_steps",
        "keep_checkpoint_max",
        "keep_hub_module_max",
        "supcon_positives",
        "eval_batch_size",
        "eval_steps",
        "linear_eval_examples",
        "color_jitter_strength",
    ]
    largest = {field.name: described(field).at_most for field in NUMBERS if field.name in names}
    changes = {**tiny_runs.SMALL, "objective": "supcon", "train_steps": 1, **largest}
    arguments = tiny_runs.arguments("train_then_eval", tmp_path / "run", photos, **changes)
    assert run.main(arguments) == 0
    result = tiny_runs.json_of(tmp_path / "run" / "result.json")
    assert result["eval/examples"] == 18
    assert (tmp_path / "run" / "ckpt-1.index").exists()
