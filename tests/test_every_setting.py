"""Every setting does something: changed alone, it changes what the program does."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import observe
import observed_runs
import pytest

from simclr_tf import config

pytestmark = pytest.mark.exhaustive


class Row(NamedTuple):
    """A setting, another value of it, what that changes, and the other settings of both runs."""

    field: str
    value: Any
    observation: observe.Observation
    base: dict[str, Any] = {}  # noqa: RUF012


FINETUNE = {"train_mode": "finetune"}
TUNED = {**FINETUNE, "checkpoint": "{pretrained}"}
SUPCON = {"objective": "supcon"}
DISTILL = {"objective": "distill", "teacher": "{pretrained}"}
EVAL = {"mode": "eval", "model_dir": "{pretrained}"}
EXPORT = {"mode": "export", "checkpoint": "{pretrained}/ckpt-4", "model_dir": "{exported}"}
EMBED = {
    "mode": "embed",
    "checkpoint": "{pretrained}",
    "embeddings": "{new}",
    "model_dir": "",
}
SEARCH = {
    "mode": "search",
    "embeddings": "{embedded}",
    "query": "{photos}/test/red/0.png",
    "model_dir": "",
}
LIST = {"mode": "runs", "under": "{runs}"}
AUDIT = {"mode": "audit", "embeddings": "{embedded}", "duplicate_cosine": 0.9, "model_dir": ""}
EPOCHS = {"train_steps": 0, "train_epochs": 2, "checkpoint_steps": 0}
DEEP = {"data_dir": "{deep}"}  # Of 16 bits.
LARGER = {"image_size": 20}  # Large enough to be blurred.
CROP = {"augmentation": "crop"}  # A smaller graph, where the device makes views.
RANDAUGMENT = {"augmentation": "randaugment"}
FALLING = {"learning_rate_decay": "step", "decay_epochs": "0.3"}
TRANSFER = {"mode": "transfer", "checkpoint": "{pretrained}"}
VALIDATED = {"eval_epochs": 1}
TPU = {"use_tpu": True}
DRAWN = {**FINETUNE, "mode": "train_then_eval", "labels_per_class": 3}
RECORDS = {"dataset": "tfrecord:/records/*"}
CORRUPTED = {
    **EVAL,
    "evaluations": "robustness",
    "corruptions": "fog",
    "corruption_severities": "1",
    "corruption_examples": 4,
}
SHIFTS = {**EVAL, "evaluations": "shifts", "shift_datasets": "{photos}"}
OOD = {**EVAL, "evaluations": "ood", "ood_datasets": "{damaged}"}

DONE = {"mode": "train_then_eval"}
# The splits of the study are larger than those of the photos.
STUDY = {
    "mode": "study",
    "study": "temperature",
    "train_split": "train",
    "eval_split": "test",
}
SLURM = {**STUDY, "launcher": "slurm"}

ROWS = [
    # What to do.
    Row("mode", "train_then_eval", observe.scores),
    Row("train_mode", "finetune", observe.argument("train_batches", "num_views")),
    Row("preset", "500_cpu", observe.changes),
    Row(
        "model_dir",
        "{second}",
        observe.argument("export", "model_dir"),
        {"model_dir": "{first}"},
    ),
    Row(
        "resume_with_changes",
        True,
        lambda run: run.code,
        {"model_dir": "{used}", "train_steps": 6},
    ),
    Row("checkpoint", "{pretrained}", observe.weights, FINETUNE),
    Row("checkpoint", "{pretrained}/ckpt-2", observe.argument("export", "step"), EXPORT),
    # No run was evaluated, so both commands are refused, for different reasons.
    Row("runs", "{first},{second}", lambda run: run.printed, {"mode": "compare"}),
    Row("format", "official", observe.every_argument("export_reference_model", "step"), EXPORT),
    Row("seed", 1, observe.weights),
    Row("seed", 1, observe.argument("train_batches", "seed")),
    Row("seed", 1, observe.argument("open_source", "seed")),
    Row("seed", 1, observe.argument("fit", "seed"), EVAL),
    # Data.
    Row("dataset", "cifar10", observe.argument("open_source", "dataset")),
    Row("data_dir", "{two_classes}", observe.classes),
    Row("labels", "none", observe.classes),
    Row("group", r"(\d)", observe.argument("open_source", "group")),
    Row("image_key", "jpg", observe.argument("open_source", "image_key"), RECORDS),
    Row("label_key", "", observe.argument("open_source", "label_key"), RECORDS),
    Row("train_split", "train[:50%]", observe.argument("train_batches", "split")),
    Row("train_split", "train[:50%]", observe.checkpoints, EPOCHS),
    Row("eval_split", "test[:50%]", observe.every_argument("extract", "split"), EVAL),
    Row("image_size", 12, lambda run: observe.views_of(run).shape),
    Row("cache_dataset", True, observe.argument("train_batches", "cache")),
    Row(
        "max_bad_images",
        1,
        observe.left_out,
        {"data_dir": "{damaged}"},
    ),
    Row("data_service", "grpc://localhost:1", observe.argument("train_batches", "data_service")),
    Row("samples_per_class", 4, observe.argument("train_batches", "samples_per_class"), SUPCON),
    # Channels and depth.
    Row("channels", "rgb", observe.pixels, DEEP),
    Row("scale", "minmax", observe.pixels),
    Row("scale_percentile", 10.0, observe.pixels, DEEP),
    Row("standardize", True, observe.pixels),
    Row("channel_names", "a,b,c", observe.pixels),
    Row(
        "channel_files",
        "{{id}}_{{channel}}.png",
        observe.argument("open_source", "channel_files"),
        {"data_dir": "{bands}"},
    ),
    Row("show_channels", "each", observe.argument("choose", "wanted")),
    # Few labels.
    Row("labels_per_class", 3, observe.left_out, FINETUNE),
    Row("labels_per_class", 3, observe.every_argument("extract", "limit"), EVAL),
    Row("label_fraction", 0.5, observe.left_out, FINETUNE),
    Row("label_draw", 1, observe.left_out, {**FINETUNE, "labels_per_class": 3}),
    Row("label_draws", 2, lambda run: len(run.calls["compile_steps"]), DRAWN),
    # Views.
    Row("num_views", 3, observe.argument("train_batches", "num_views"), CROP),
    Row("augmentation", "crop,flip", observe.views_of, LARGER),
    Row("augmentation_branches", "one", observe.views_of, LARGER),
    Row("augment_on", "device", observe.argument("train_batches", "augment_on"), CROP),
    Row("progressive_resizing", "8:50%", observe.sizes_of_views, LARGER),
    Row("use_crop", False, observe.views_of, LARGER),
    Row("crop_area_min", 0.5, observe.views_of, LARGER),
    Row("use_flip", False, observe.views_of, LARGER),
    Row("use_color_jitter", False, observe.views_of, LARGER),
    Row("use_color_drop", False, observe.views_of, LARGER),
    Row("use_blur", False, observe.views_of, LARGER),
    Row("color_jitter_strength", 0.5, observe.views_of, LARGER),
    Row("brightness", "additive", observe.views_of, LARGER),
    Row("jitter_order", "fixed", observe.views_of, LARGER),
    Row("randaugment_layers", 1, observe.views_of, RANDAUGMENT),
    Row("randaugment_level", 5, observe.views_of, RANDAUGMENT),
    # Network.
    Row("encoder", "tiny_encoders:sequential", observe.shapes),
    Row("resnet_depth", 14, observe.shapes),
    Row("width_multiplier", 2, observe.shapes),
    Row("stem", "imagenet", observe.shapes),
    Row("sk_ratio", 0.0625, observe.outputs),
    Row("se_ratio", 0.25, observe.shapes),
    Row("proj_head_mode", "linear", observe.shapes),
    Row("proj_out_dim", 12, observe.shapes),
    Row("num_proj_layers", 3, observe.shapes),
    Row("proj_head_bn", False, observe.shapes),
    Row("normalize_features", True, observe.outputs),
    Row("ft_proj_selector", -1, observe.shapes, FINETUNE),
    Row("global_bn", False, observe.normalised_on_two, {"num_virtual_cpus": 2}),
    Row("global_bn", False, observe.synchronized),
    Row("batch_norm_decay", 0.5, observe.changes),
    # Objective.
    Row("objective", "nt_logistic", observe.metric("contrast_loss")),
    Row("temperature", 0.5, observe.metric("contrast_loss")),
    Row("temperature", 0.5, observe.metric("contrast_entropy")),
    Row("temperature", 0.5, observe.metric("contrast_loss"), SUPCON),
    Row("hidden_norm", False, observe.metric("contrast_loss")),
    Row("hidden_norm", False, observe.metric("contrast_entropy")),
    Row("hidden_norm", False, observe.metric("contrast_loss"), SUPCON),
    Row("negatives", "one", observe.metric("contrast_loss")),
    Row("decoupled", True, observe.metric("contrast_loss")),
    Row("decoupled", True, observe.metric("contrast_loss"), SUPCON),
    Row("semi_hard", True, observe.metric("contrast_loss"), {"objective": "nt_logistic"}),
    Row("margin", 0.2, observe.metric("contrast_loss"), {"objective": "margin_triplet"}),
    Row("supcon_positives", 1, observe.metric("contrast_loss"), SUPCON),
    Row("scale_by_temperature", True, observe.metric("contrast_loss"), SUPCON),
    Row("lineareval_while_pretraining", False, observe.classes),
    # Classification.
    Row("label_smoothing", 0.1, observe.metric("supervised_loss"), FINETUNE),
    Row("supcon_class_average", True, observe.metric("contrast_loss"), SUPCON),
    Row("class_balance", 0.9, lambda run: (run.folder / "class_counts.json").exists(), FINETUNE),
    Row("mixup", 8.0, observe.metric("supervised_loss"), FINETUNE),
    Row("cutmix", 8.0, observe.metric("supervised_loss"), FINETUNE),
    Row("teacher", "{other}", observe.argument("load", "path"), DISTILL),
    Row("distillation_temperature", 2.0, observe.metric("distillation_loss"), DISTILL),
    Row("distillation_weight", 0.5, observe.metric("total_loss"), DISTILL),
    # Fine-tuning.
    Row("fine_tune_after_block", 4, observe.trained_variables, TUNED),
    Row("zero_init_logits_layer", True, observe.weights, TUNED),
    # Training.
    Row("train_batch_size", 4, observe.checkpoints, EPOCHS),
    Row("train_batch_size", 4, observe.argument("train_batches", "batch_size"), EPOCHS),
    Row("train_epochs", 1, observe.checkpoints, EPOCHS),
    Row("train_steps", 3, observe.checkpoints),
    Row("accum_chunks", 2, observe.every_argument("chunked_step", "chunks"), CROP),
    Row("optimizer", "adam", observe.optimizer_class),
    Row("optimizer", "lars", observe.changes),
    Row("learning_rate", 0.1, observe.rates),
    Row("learning_rate", 0.1, observe.changes),
    Row("learning_rate_scaling", "sqrt", observe.rates),
    Row("learning_rate_decay", "exponential", observe.rates, FALLING),
    Row("decay_epochs", "0.6", observe.rates, FALLING),
    Row("decay_factor", 0.5, observe.rates, FALLING),
    Row("warmup_epochs", 0.5, observe.rates),
    Row("momentum", 0.5, observe.changes),
    Row("momentum", 0.5, observe.changes, {"optimizer": "lars"}),
    Row("momentum", 0.5, observe.changes, {"optimizer": "rmsprop"}),
    Row("weight_decay", 0.1, observe.metric("weight_decay")),
    Row("weight_decay", 0.1, observe.changes, {"optimizer": "lars"}),
    Row("weight_decay", 0.1, observe.changes, {"optimizer": "adamw"}),
    Row("clip_gradient_norm", 1e-3, observe.changes),
    # Checkpoints and logs.
    Row("checkpoint_epochs", 2, observe.checkpoints, EPOCHS),
    Row("checkpoint_steps", 1, observe.checkpoints),
    Row("keep_checkpoint_max", 1, observe.checkpoints),
    Row("keep_hub_module_max", 2, observe.argument("export", "keep")),
    Row("keep_hub_module_max", 2, observe.argument("export", "keep"), EXPORT),
    Row("export_outputs", "features", observe.argument("export", "names"), EXPORT),
    Row("export_outputs", "embedding", observe.argument("export", "names")),
    Row("export_dtype", "bfloat16", observe.argument("export", "dtype"), EXPORT),
    Row("weights_license", "MIT", observe.argument("export", "weights_license"), EXPORT),
    Row("weights_license", "MIT", observe.argument("export", "weights_license")),
    Row("train_summary_steps", 2, observe.recorded_steps),
    # Evaluation.
    Row("eval_batch_size", 8, observe.every_argument("extract", "batch_size"), EVAL),
    Row("eval_steps", 1, observe.every_argument("extract", "limit"), EVAL),
    Row("eval_name", "mine", observe.warnings),
    Row("evaluations", "knn", observe.scores, EVAL),
    Row("linear_eval", False, observe.scores, EVAL),
    Row("untrained_baselines", False, observe.every_argument("score", "baselines"), DONE),
    Row("linear_eval_examples", 20, observe.every_argument("extract", "limit"), EVAL),
    # Transfer. What the grid does takes many runs; it is tested in test_transfer.py.
    Row("transfer_to", "{photos}", observe.every_argument("extract", "split"), TRANSFER),
    Row(
        "baselines",
        "{used}",
        observe.every_argument("extract", "split"),
        {**TRANSFER, "transfer_to": "{photos}"},
    ),
    Row("transfer_grid", "small", lambda run: run.printed, {"mode": "compare"}),
    Row("eval_epochs", 1, observe.left_out),
    Row("eval_epochs", 2, observe.every_argument("evaluate", "step"), {**EPOCHS, **VALIDATED}),
    Row("validation_examples", 6, observe.left_out, VALIDATED),
    # Embeddings.
    Row("embeddings", "{second}", observe.every_argument("write", "folder"), EMBED),
    Row("embed_split", "test", observe.every_argument("extract", "split"), EMBED),
    Row("embed_outputs", "logits", observe.every_argument("write", "outputs"), EMBED),
    Row("embed_shard_examples", 20, observe.every_argument("extract", "split"), EMBED),
    Row("query", "{photos}/test/blue/0.png", lambda run: run.printed, SEARCH),
    Row("neighbours", 3, lambda run: run.returned["examine"].distances, AUDIT),
    Row("duplicate_cosine", 0.9999, lambda run: run.returned["examine"].numbers, AUDIT),
    # Studies.
    Row("study", "list", lambda run: len(run.calls["train_all"]), STUDY),
    Row("dry_run", True, lambda run: len(run.calls["train_all"]), STUDY),
    Row("study_seeds", 1, lambda run: len(run.call("train_all")["runs"]), STUDY),
    Row("study_results", "{second}", lambda run: len(list(run.folder.glob("*/*.md"))), STUDY),
    Row("launcher", "slurm", observe.argument("make", "name"), STUDY),
    Row("jobs", 2, observe.argument("make", "jobs"), STUDY),
    Row("slurm_parameters", "a=1", observe.argument("make", "parameters"), SLURM),
    # Evaluation on other images.
    Row("corruptions", "snow", observe.argument("corrupt", "name"), CORRUPTED),
    Row("corruption_severities", "2", observe.argument("corrupt", "severity"), CORRUPTED),
    Row("corruption_examples", 5, observe.argument("corrupt", "positions"), CORRUPTED),
    # No corrupted data set is opened here, and no other run has results: two reasons to refuse.
    Row("corrupted_dataset", "cifar10_corrupted", lambda run: run.printed, CORRUPTED),
    Row("baseline_run", "{first}", lambda run: run.printed, CORRUPTED),
    Row("shift_datasets", "{damaged}", observe.argument("open_source", "data_dir"), SHIFTS),
    Row("ood_datasets", "{two_classes}", observe.argument("open_source", "data_dir"), OOD),
    # List of runs.
    Row("under", "{used}", lambda run: run.printed, LIST),
    Row("sort", "accuracy", lambda run: run.printed, LIST),
    Row("filter", "seed=1", lambda run: run.printed, LIST),
    Row("export_runs", "{first}.csv", lambda run: run.printed, LIST),
    # Machine.
    Row("use_tpu", True, observe.every_argument("TPUClusterResolver", "tpu")),
    Row("tpu_name", "mine", observe.argument("TPUClusterResolver", "tpu"), TPU),
    Row("master", "grpc://10.0.0.2:8470", observe.argument("TPUClusterResolver", "tpu"), TPU),
    Row("tpu_zone", "us-central1-a", observe.argument("TPUClusterResolver", "zone"), TPU),
    Row("gcp_project", "mine", observe.argument("TPUClusterResolver", "project"), TPU),
    Row("num_virtual_cpus", 2, lambda run: run.strategy.num_replicas_in_sync),
    Row("preemption_signal", "USR1", observe.every_argument("listen", "name")),
    Row("mixed_precision", "bfloat16", observe.outputs),
    Row("mixed_precision", "float16", observe.optimizer_class),
    Row("jit_compile", True, observe.argument("whole_step", "jit_compile")),
    Row("deterministic", True, lambda run: len(run.calls["make_deterministic"])),
    Row("recompute", True, observe.recomputed_groups),
]


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    return observed_runs.Runner(tmp_path_factory)


def test_the_table_has_every_setting():
    settings = {field.name for field in dataclasses.fields(config.Config)}
    assert {row.field for row in ROWS} == settings


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.field)
def test_a_setting_that_is_changed_alone_changes_what_the_program_does(row, runner):
    changed = {**row.base, row.field: row.value}
    runs = [runner(**settings) for settings in (row.base, changed)]
    for run, settings in zip(runs, (row.base, changed)):
        assert run.code == _expected_code(settings), run.printed
    assert not observe.same(*map(row.observation, runs)), (
        f"--{row.field}={row.value} changes nothing"
    )


def _expected_code(settings: dict[str, Any]) -> int:
    """Returns 2 for what cannot run here, and for other settings of a run in a used directory."""
    if settings.get("model_dir") == "{used}":
        return 0 if "resume_with_changes" in settings else 2
    # There is no TPU, no other data set and no evaluated run. Everything else runs to its end.
    refused = bool({"use_tpu", "dataset", "corrupted_dataset", "baseline_run"} & settings.keys())
    refused = refused or settings.get("mode") == "compare"
    refused = refused or (settings.get("mode") == "transfer" and "transfer_to" not in settings)
    return 2 if refused else 0


def test_the_same_settings_give_the_same_observations(runner):
    observed = {
        row.observation.__qualname__ + row.field: row.observation for row in ROWS if not row.base
    }
    usual, again = runner(), runner.run()
    for name, observation in observed.items():
        assert observe.same(observation(usual), observation(again)), name
