"""Creates the optimizer of a run, and selects the variables that its loss decays."""

from __future__ import annotations

from typing import TypeAlias

import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import errors, keras_api, keras_optimizers
from simclr_tf.keras_api import keras
from simclr_tf.models import simclr
from simclr_tf.training import lars, rmsprop

_Optimizer: TypeAlias = keras.optimizers.Optimizer
_Schedule: TypeAlias = keras.optimizers.schedules.LearningRateSchedule


def make_optimizer(
    config: config_lib.Config,
    model: simclr.SimCLR,
    variables: list[tf.Variable],
    schedule: _Schedule,
) -> _Optimizer:
    """Returns the optimizer, with its slots created. Call it in the strategy's scope.

    Args:
        config: the name of the optimizer and its settings.
        model: the network, which lists its variables of batch norm, biases and linear head.
        variables: the variables to train.
        schedule: the learning rate.

    Raises:
        UserError: for LAMB, if tensorflow-addons is not installed.
    """
    makers = {
        "lars": _lars,
        "momentum": _momentum,
        "rmsprop": _rmsprop,
        "adam": _adam,
        "adamw": _adamw,
        "lamb": _lamb,
    }
    optimizer = makers[config.optimizer](config, model, schedule)
    if config.mixed_precision == "float16":
        # float16 gradients underflow unless the loss is scaled up; bfloat16 has float32's range.
        optimizer = keras_optimizers.loss_scaled(optimizer)
    _create_slots(optimizer, variables)
    return optimizer


def _create_slots(optimizer: _Optimizer, variables: list[tf.Variable]) -> None:
    if hasattr(optimizer, "build"):
        optimizer.build(variables)
    else:  # The legacy base class, which tensorflow-addons uses.
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        inner._create_all_weights(variables)


def _lars(config: config_lib.Config, model: simclr.SimCLR, schedule: _Schedule) -> _Optimizer:
    return lars.LARS(
        schedule,
        momentum=config.momentum,
        weight_decay_rate=config.weight_decay,
        excluded_variables=model.lars_excluded_variables(),
    )


def _momentum(config: config_lib.Config, model: simclr.SimCLR, schedule: _Schedule) -> _Optimizer:
    return keras_optimizers.SGD(schedule, momentum=config.momentum, nesterov=True)


def _rmsprop(config: config_lib.Config, model: simclr.SimCLR, schedule: _Schedule) -> _Optimizer:
    # SupCon's settings for its linear classifiers.
    return rmsprop.RMSProp(schedule, rho=0.9, momentum=config.momentum, epsilon=1e-3)


def _adam(config: config_lib.Config, model: simclr.SimCLR, schedule: _Schedule) -> _Optimizer:
    return keras_optimizers.Adam(schedule)


def _adamw(config: config_lib.Config, model: simclr.SimCLR, schedule: _Schedule) -> _Optimizer:
    optimizer = keras_optimizers.AdamW(schedule, weight_decay=config.weight_decay)
    optimizer.exclude_from_weight_decay(
        var_list=[v for v in model.trainable_variables if len(v.shape) <= 1]
    )
    return optimizer


def _lamb(config: config_lib.Config, model: simclr.SimCLR, schedule: _Schedule) -> _Optimizer:
    try:
        import tensorflow_addons as tfa  # Optional, and prints a deprecation warning.
    except ImportError as error:
        raise errors.UserError(
            "--optimizer=lamb comes from tensorflow-addons, which exists up to Python 3.11 and "
            "TensorFlow 2.15 only; use --optimizer=lars or adamw here."
        ) from error
    small = ["gamma", "beta", "bias"]
    return tfa.optimizers.LAMB(
        schedule,
        weight_decay=config.weight_decay,
        exclude_from_weight_decay=small,
        exclude_from_layer_adaptation=small,
    )


def decay_in_loss(config: config_lib.Config, model: simclr.SimCLR) -> list[tf.Variable]:
    """Returns the trainable variables whose squared norm is added to the loss.

    As in google-research/simclr, with LARS that is only the kernel of the linear head, which LARS
    itself does not decay; with momentum and Adam (and here RMSProp) everything except batch norm.
    AdamW and LAMB apply weight decay themselves.
    """
    if config.optimizer == "lars":
        return [] if model.linear_head is None else [keras_api.raw(model.linear_head.dense.kernel)]
    if config.optimizer in ("momentum", "rmsprop", "adam"):
        norms = {variable.ref() for variable in model.norm_variables()}
        return [v for v in model.trainable_variables if v.ref() not in norms]
    return []
