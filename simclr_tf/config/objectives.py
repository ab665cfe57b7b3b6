"""Checks of --objective and of the settings that only some objectives can use."""

from __future__ import annotations

from simclr_tf import errors
from simclr_tf.config.settings import Config


def check(config: Config) -> None:
    """Refuses an objective that other settings contradict, or without what it learns from.

    Raises:
        UserError: with the remedy.
    """
    objective = config.resolved_objective
    if config.train_mode == "finetune" and config.contrastive:
        raise errors.UserError(
            f"--objective={objective} pretrains; leave out --train_mode=finetune, or fine-tune "
            "with --objective=supervised."
        )
    if config.negatives == "one" and config.num_views > 2:
        raise errors.UserError(
            "--negatives=one contrasts the two sides of a pair, and "
            f"--num_views={config.num_views} has more; give --negatives=both, or --num_views=2."
        )
    if config.supcon_class_average and config.supcon_positives:
        raise errors.UserError(
            f"--supcon_class_average averages all views of a class, and "
            f"--supcon_positives={config.supcon_positives} leaves some out; use one."
        )
    if config.mixup and config.cutmix:
        raise errors.UserError(
            f"--mixup={config.mixup:g} and --cutmix={config.cutmix:g} both mix images; use one."
        )
    if config.zero_init_logits_layer and config.contrastive and config.checkpoint is None:
        raise errors.UserError(
            f"--zero_init_logits_layer has no effect, because --objective={objective} without "
            "--checkpoint starts from random weights; leave it out, or give "
            "--nozero_init_logits_layer if a flagfile sets it."
        )
    if objective == "distill" and config.teacher is None:
        raise errors.UserError(
            "--objective=distill has no teacher; set --teacher to a trained run or a SavedModel."
        )
