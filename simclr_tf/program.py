"""The verbs of the program: train, evaluate, and one after the other."""

from __future__ import annotations

import dataclasses
import os
import time
from typing import Any

import numpy as np
import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import errors, run_directory
from simclr_tf.data import pipeline, sources, views
from simclr_tf.evaluation import features, linear
from simclr_tf.models import resnet, simclr
from simclr_tf.report import console, overview, records
from simclr_tf.serving import export
from simclr_tf.training import checkpoints as checkpoints_lib
from simclr_tf.training import loop, optimizers, schedules, steps


@dataclasses.dataclass(frozen=True)
class Run:
    """A run with its data opened and its splits known.

    Attributes:
        config: the settings, with `eval_split` resolved.
        source: the data set.
        strategy: over the replicas.
        architecture: of the network.
    """

    config: config_lib.Config
    source: sources.Source
    strategy: tf.distribute.Strategy
    architecture: simclr.Architecture

    @property
    def model_dir(self) -> str:
        """The run directory."""
        assert self.config.model_dir is not None
        return self.config.model_dir

    @property
    def labelled(self) -> bool:
        """Whether the data has labels."""
        return self.source.class_names is not None

    def new_model(self) -> simclr.SimCLR:
        """Returns the network at its initial weights, a function of the seed."""
        with self.strategy.scope():
            return simclr.SimCLR(
                self.architecture,
                seed=self.config.seed,
                mixed_precision=self.config.mixed_precision,
                global_bn=self.config.global_bn,
            )


def open_run(
    config: config_lib.Config, strategy: tf.distribute.Strategy, *, eval_split_given: bool
) -> Run:
    """Opens the data and the run directory, and refuses what cannot work before any work.

    Args:
        config: the settings.
        strategy: over the replicas.
        eval_split_given: whether the person named the evaluation split. If not, and the data
            has no such split, a usual one that it has is taken.

    Raises:
        UserError: for whatever is wrong with settings, data or directory.
    """
    config.check()
    if config.model_dir is None:
        raise errors.UserError("--model_dir is missing; name a folder for this run's files.")
    resnet.check_depth(config.resnet_depth)
    replicas = strategy.num_replicas_in_sync
    if config.train_batch_size % replicas:
        raise errors.UserError(
            f"--train_batch_size={config.train_batch_size} does not divide by the {replicas} "
            f"replicas; use {_nearest_multiple(config.train_batch_size, replicas)}."
        )
    if config.jit_compile and replicas > 1 and not config.use_tpu:
        raise errors.UserError(
            f"--jit_compile works on one device, and there are {replicas} replicas; leave it out."
        )
    source = sources.open_source(config.dataset, data_dir=config.data_dir, seed=config.seed)
    if not eval_split_given:
        config = dataclasses.replace(config, eval_split=_usual_eval_split(source, config))
    if config.mode != "train" or config.train_mode == "finetune":
        _check_labels(config, source)
    run_directory.prepare(config.model_dir)
    with_head = config.lineareval_while_pretraining or not config.pretraining
    names = source.class_names if with_head else None
    architecture = simclr.architecture_of(config, names)
    stored = run_directory.read_architecture(config.model_dir)
    if stored is not None:
        run_directory.check_same(stored, architecture, config.model_dir)
    return Run(config, source, strategy, architecture)


def _nearest_multiple(value: int, of: int) -> str:
    low = value // of * of
    return f"{low} or {low + of}" if low >= 2 else str(low + of)


def _usual_eval_split(source: sources.Source, config: config_lib.Config) -> str:
    for split in (config.eval_split, "validation", "test", "val", "valid"):
        if split in source.splits:
            return split
    return config.eval_split


def _check_labels(config: config_lib.Config, source: sources.Source) -> None:
    if source.class_names is not None:
        return
    what = "evaluation" if config.mode == "eval" else "fine-tuning"
    if config.mode == "eval" or config.train_mode == "finetune":
        raise errors.UserError(
            f"The data set {source.name!r} has no labels, so {what} has nothing to compare with; "
            "use --mode=train to pretrain on it, or data with one folder per class."
        )


def train(run: Run) -> simclr.SimCLR:
    """Trains, or goes on training, and exports the outcome.

    Returns:
        The trained network.
    """
    config = run.config
    if config.train_mode == "finetune":
        _check_start(run)
    plan = schedules.make_plan(config, run.source.num_examples(config.train_split))
    run_directory.write_architecture(run.model_dir, run.architecture)
    schedule = schedules.WarmupCosine(plan.peak_rate, plan.warmup_steps, plan.total_steps)
    model = run.new_model()
    with run.strategy.scope():
        learner, checkpoints = _make_learner(run, model, schedule)
        origin = _start(run, model, checkpoints)
    overview.before_training(run, plan, model, origin)
    log = records.Records(run.model_dir, from_step=int(checkpoints.step))
    if int(checkpoints.step) < plan.total_steps:
        _fit(run, plan, schedule, learner, checkpoints, log)
    with console.working("exported the SavedModel"):
        export.export(model, run.model_dir, int(checkpoints.step), keep=config.keep_hub_module_max)
    return model


def _check_start(run: Run) -> None:
    """Refuses a fine-tuning that freezes what was never trained."""
    config = run.config
    if config.checkpoint is None and config.fine_tune_after_block >= 0:
        raise errors.UserError(
            f"--fine_tune_after_block={config.fine_tune_after_block} freezes layers that nothing "
            "has trained; name a pretraining run with --checkpoint."
        )


def _make_learner(
    run: Run, model: simclr.SimCLR, schedule: schedules.WarmupCosine
) -> tuple[steps.Learner, checkpoints_lib.Checkpoints]:
    config = run.config
    if config.pretraining:
        variables = model.trainable_variables
    else:
        model.encoder.freeze(config.fine_tune_after_block)
        variables = model.classifier_variables()
    optimizer = optimizers.make_optimizer(config, model, variables, schedule)
    trained = {variable.ref() for variable in variables}
    decayed = [v for v in optimizers.decay_in_loss(config, model) if v.ref() in trained]
    learner = steps.Learner(model, optimizer, variables, decayed, config.weight_decay)
    checkpoints = checkpoints_lib.Checkpoints(
        run.model_dir, model, optimizer, keep=config.keep_checkpoint_max
    )
    return learner, checkpoints


def _start(
    run: Run, model: simclr.SimCLR, checkpoints: checkpoints_lib.Checkpoints
) -> list[str]:
    """Starts where it should: own checkpoint, given checkpoint, or initial weights."""
    own = checkpoints.restore_latest()
    if own is not None:
        return [f"resumed from {own}"]
    if run.config.checkpoint is None:
        return [f"initial weights of seed {run.config.seed}"]
    report = checkpoints_lib.start_from(
        run.config.checkpoint,
        model,
        zero_init_logits_layer=run.config.zero_init_logits_layer,
    )
    return [f"weights of {run.config.checkpoint}", *report]


def _policy(config: config_lib.Config) -> views.Policy:
    area = (config.crop_area_min, 1.0)
    if not config.pretraining:
        return views.supervised_policy(
            config.image_size, crop=config.use_crop, crop_area=area, flip=config.use_flip
        )
    return views.Policy(
        config.image_size,
        crop=config.use_crop,
        crop_area=area,
        flip=config.use_flip,
        color_jitter=config.use_color_jitter,
        color_drop=config.use_color_drop,
        color_jitter_strength=config.color_jitter_strength,
        blur=config.use_blur,
    )


def _fit(
    run: Run,
    plan: schedules.Plan,
    schedule: schedules.WarmupCosine,
    learner: steps.Learner,
    checkpoints: checkpoints_lib.Checkpoints,
    log: records.Records,
) -> None:
    config, start = run.config, int(checkpoints.step)
    if config.pretraining:
        step = steps.contrastive_step(
            learner,
            temperature=config.temperature,
            hidden_norm=config.hidden_norm,
            labelled=learner.model.linear_head is not None,
        )
    else:
        step = steps.supervised_step(learner)
    _show_views(run, start, log)
    train_steps = loop.compile_steps(run.strategy, step, jit_compile=config.jit_compile)
    try:
        loop.fit(train_steps, iter(_distributed(run, start)), plan, schedule, checkpoints, log)
    except tf.errors.InvalidArgumentError as error:
        raise _blame_image(run, error) from error


def _distributed(run: Run, start_step: int) -> tf.distribute.DistributedDataset:
    """Returns the endless stream of training batches, dealt out to the replicas."""
    per_replica = run.config.train_batch_size // run.strategy.num_replicas_in_sync

    def of_host(context: tf.distribute.InputContext) -> tf.data.Dataset:
        batches = _batches(
            run, start_step, context.num_input_pipelines, context.input_pipeline_id
        )
        if context.num_replicas_in_sync == context.num_input_pipelines:
            return batches
        # Views are made for the whole host and then dealt out, so that they are the same
        # whatever the number of replicas.
        return batches.rebatch(per_replica).prefetch(2 * run.strategy.num_replicas_in_sync)

    return run.strategy.distribute_datasets_from_function(of_host)


def _batches(run: Run, start_step: int, num_shards: int = 1, shard: int = 0) -> tf.data.Dataset:
    config = run.config
    return pipeline.train_batches(
        run.source,
        config.train_split,
        _policy(config),
        batch_size=config.train_batch_size,
        num_views=2 if config.pretraining else 1,
        seed=config.seed,
        start_step=start_step,
        num_shards=num_shards,
        shard=shard,
        cache=config.cache_dataset,
    )


def _show_views(run: Run, step: int, log: records.Records) -> None:
    """Puts the views of the first batch before the person's eyes: a picture and TensorBoard."""
    try:
        with console.working("made the first views"):
            batch = next(iter(_batches(run, step)))
    except tf.errors.InvalidArgumentError as error:
        raise _blame_image(run, error) from error
    grid = records.view_grid(batch["views"].numpy())
    log.image("train/views", step, grid)
    records.write_png(os.path.join(run.model_dir, records.VIEWS), grid)


def _blame_image(run: Run, error: tf.errors.OpError) -> Exception:
    """Finds the image that does not decode; returns what to raise."""
    for split in {run.config.train_split, run.config.eval_split}:
        try:
            with console.working(f"looked for the damaged image in {split}"):
                name = sources.first_undecodable(run.source, split)
        except errors.UserError:
            continue  # No such split.
        if name is not None:
            return errors.UserError(
                f"The image {name} of {split!r} cannot be decoded; repair it or take it out. "
                "Training goes on from the last checkpoint when you run the same command again."
            )
    return error


def evaluate(run: Run, model: simclr.SimCLR | None = None, *, baselines: bool = False) -> dict:
    """Evaluates the last checkpoint of a run and writes result.json.

    Args:
        run: of which.
        model: its network, if it is at hand; otherwise it is read from the run directory.
        baselines: probes raw pixels and the untrained encoder too.

    Returns:
        The result, as in result.json.

    Raises:
        UserError: if the run has no checkpoint.
    """
    config = run.config
    if model is None:
        model = run.new_model()
    with run.strategy.scope():
        checkpoints = checkpoints_lib.Checkpoints(run.model_dir, model, None)
        path = checkpoints.restore_latest()
    if path is None:
        raise errors.UserError(
            f"--model_dir={run.model_dir} holds no checkpoint to evaluate; train first."
        )
    start = time.monotonic()
    result: dict[str, Any] = {"global_step": int(checkpoints.step)}
    if run.labelled:
        try:
            result.update(_scores(run, model, baselines=baselines))
        except tf.errors.InvalidArgumentError as error:
            raise _blame_image(run, error) from error
    else:
        result["eval/skipped"] = f"the data set {run.source.name!r} has no labels"
    seconds = float(checkpoints.seconds)
    result["train/seconds"] = round(seconds, 3)
    trained = int(checkpoints.step) * config.train_batch_size
    result["train/images_per_second"] = round(trained / seconds, 3) if seconds else 0.0
    result["eval/seconds"] = round(time.monotonic() - start, 3)
    run_directory.write_result(run.model_dir, result)
    overview.after_evaluation(run, result)
    return result


def _scores(run: Run, model: simclr.SimCLR, *, baselines: bool) -> dict[str, Any]:
    config = run.config
    test = _extract(run, model, config.eval_split, with_pixels=baselines)
    result: dict[str, Any] = {}
    if test.logits is not None:
        for k in (1, 5):
            result[f"eval/label_top_{k}_accuracy"] = linear.top_k_accuracy(
                test.logits, test.labels, k
            )
        result["eval/examples"] = len(test.labels)
    if not config.linear_eval:
        return result
    train = _extract(run, model, config.train_split, with_pixels=baselines)
    result.update(_probe(run, "linear_eval", train.features, test.features, train, test))
    if baselines:
        pixels = _probe(run, "baseline/raw_pixels", train.pixels, test.pixels, train, test)
        result.update(pixels)
        untrained = run.new_model()
        label = "features of the untrained encoder"
        train_u = _extract(run, untrained, config.train_split, what=label)
        test_u = _extract(run, untrained, config.eval_split, what=label)
        result.update(
            _probe(run, "baseline/random_encoder", train_u.features, test_u.features, train, test)
        )
    return result


def _extract(
    run: Run,
    model: simclr.SimCLR,
    split: str,
    *,
    with_pixels: bool = False,
    what: str = "features",
) -> features.Extracted:
    config = run.config
    limit = None
    if split == config.train_split:
        limit = config.linear_eval_examples
        if run.source.num_examples(split) > limit:
            console.say(
                f"The linear evaluation learns from the first {limit:,} of "
                f"{run.source.num_examples(split):,} images (--linear_eval_examples)."
            )
    elif config.eval_steps:
        limit = config.eval_steps * config.eval_batch_size
    return features.extract(
        model,
        run.source,
        split,
        batch_size=config.eval_batch_size,
        limit=limit,
        with_pixels=with_pixels,
        what=what,
    )


def _probe(
    run: Run,
    name: str,
    train_x: np.ndarray,
    test_x: np.ndarray,
    train: features.Extracted,
    test: features.Extracted,
) -> dict[str, Any]:
    with console.working(f"fitted the linear classifier of {name}"):
        score = linear.linear_evaluation(
            train_x, train.labels, test_x, test.labels, seed=run.config.seed
        )
    if not score.converged:
        console.warn(f"The linear classifier of {name} reached its iteration limit.")
    return {
        f"{name}/top_1_accuracy": score.top_1_accuracy,
        f"{name}/top_5_accuracy": score.top_5_accuracy,
        f"{name}/l2_inverse_strength": score.strength,
    }
