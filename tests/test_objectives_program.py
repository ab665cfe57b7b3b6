"""Every objective in the whole program, from its command line to weights and metrics."""

from __future__ import annotations

from collections.abc import Callable
import functools
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import tiny_runs

from simclr_tf.models import simclr
from simclr_tf.runs import directory

pytestmark = pytest.mark.usefixtures("no_export")

STEPS = 2
LABELS = {"train/supervised_loss", "train/supervised_acc"}
CONTRAST = {
    "train/contrast_loss",
    "train/contrast_acc",
    "train/contrast_entropy",
    "train/feature_spread",
    "train/feature_rank",
    *("train/positive_cosine", "train/negative_cosine", "train/alignment", "train/uniformity"),
    *LABELS,
}
POSITIVES = {"train/views_without_positive"}
# objective: (settings that only this kind of objective reads, its metrics).
OBJECTIVES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "nt_xent": ({"negatives": "one"}, {*CONTRAST, "train/chance_loss"}),
    "nt_logistic": ({"semi_hard": True}, CONTRAST),
    "margin_triplet": ({"margin": 0.4, "semi_hard": True}, CONTRAST),
    "supcon": (
        {"scale_by_temperature": True, "normalize_features": True, "proj_head_bn": False},
        {*CONTRAST, *POSITIVES},
    ),
    "supcon_in": ({"supcon_positives": 3}, {*CONTRAST, *POSITIVES}),
    "n_pairs": ({"temperature": 1}, {*CONTRAST, *POSITIVES}),
    "supervised": ({"label_smoothing": 0.1}, LABELS),
    "distill": (
        {"distillation_temperature": 2, "distillation_weight": 0.7},
        {"train/distillation_loss", "train/teacher_agreement", *LABELS},
    ),
}
# One of each kind; the losses and the steps have tests of their own.
ON_BOTH_STACKS = ("nt_xent", "supcon", "supervised", "distill")
ALWAYS = {
    *("train/weight_decay", "train/total_loss", "train/images_per_second", "train/input_wait"),
    "train/gradient_norm",
    *("learning_rate", "step"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., pathlib.Path]:
    """A function (objective, replicas, changes) -> run directory, which must not be changed."""
    photos = tiny_runs.photos(tmp_path_factory)
    teacher = tiny_runs.pretrained(tmp_path_factory)

    @functools.cache
    def run_directory(objective: str, replicas: int = 1, **changes: Any) -> pathlib.Path:
        settings = {**tiny_runs.NO_COLOR, **OBJECTIVES[objective][0]}
        if objective == "distill":
            settings["teacher"] = teacher
        settings |= {"objective": objective, "train_steps": STEPS, "num_virtual_cpus": replicas}
        model_dir = tmp_path_factory.mktemp("objectives") / objective
        assert tiny_runs.main("train", model_dir, photos, **{**settings, **changes}) == 0
        return model_dir

    return run_directory


def check_equal_weights(one: pathlib.Path, other: pathlib.Path) -> None:
    """Asserts that two runs ended with the same weights, to the precision of float32."""
    one_weights, other_weights = tiny_runs.weights(one), tiny_runs.weights(other)
    assert one_weights.keys() == other_weights.keys()
    for name, value in one_weights.items():
        np.testing.assert_allclose(other_weights[name], value, rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    "objective",
    [
        pytest.param(name, marks=[] if name in ON_BOTH_STACKS else pytest.mark.exhaustive)
        for name in OBJECTIVES
    ],
)
def test_every_objective_trains_the_encoder_and_records_its_metrics(trained, objective):
    model_dir = trained(objective)
    lines = tiny_runs.lines_of(model_dir / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, STEPS]
    for line in lines:
        assert line.keys() == ALWAYS | OBJECTIVES[objective][1]
        assert all(np.isfinite(value) for value in line.values())
        assert line["train/total_loss"] > 0
    # The encoder was trained, down to its first layer.
    start = simclr.SimCLR(directory.read_architecture(str(model_dir)), seed=0)
    kernel = "model/encoder/stem_conv/kernel/.ATTRIBUTES/VARIABLE_VALUE"
    moved = tiny_runs.weights(model_dir)[kernel] - start.encoder.stem_conv.kernel.numpy()
    assert np.abs(moved).max() > 1e-6


# With labels, and with a teacher; test_export.py has a run without either. The losses and the steps
# have tests of their own on up to four replicas, on both stacks.
@pytest.mark.exhaustive
@pytest.mark.parametrize("objective", ["supcon", pytest.param("distill", marks=pytest.mark.slow)])
def test_two_replicas_end_with_the_weights_of_one(trained, objective):
    check_equal_weights(trained(objective), trained(objective, 2))


@pytest.mark.exhaustive
def test_a_saved_model_as_teacher_equals_its_run_directory_as_teacher(trained, tmp_path_factory):
    (folder,) = (tiny_runs.pretrained(tmp_path_factory) / "saved_model").iterdir()
    student = trained("distill")
    check_equal_weights(student, trained("distill", teacher=folder))


@pytest.mark.exhaustive
def test_a_student_on_unlabelled_images_gets_the_classes_of_its_teacher(tmp_path_factory, tmp_path):
    teacher = tiny_runs.pretrained(tmp_path_factory)
    unlabelled = tiny_runs.unlabelled_photos(tmp_path_factory)
    changes = {"objective": "distill", "teacher": teacher, "train_steps": 1, **tiny_runs.NO_COLOR}
    assert tiny_runs.main("train", tmp_path / "run", unlabelled, **changes) == 0
    stored = tiny_runs.json_of(tmp_path / "run" / "architecture.json")
    assert stored["class_names"] == list(tiny_runs.CLASSES)
    (line,) = tiny_runs.lines_of(tmp_path / "run" / "metrics.jsonl")
    assert not LABELS & line.keys()
    assert line["train/distillation_loss"] > 0


@pytest.mark.exhaustive
def test_a_batch_in_chunks_ends_with_the_weights_of_the_batch_at_once(trained, tmp_path_factory):
    # With the encoder frozen no batch norm sees its batch, so that chunks make no difference.
    frozen = {"train_mode": "finetune", "fine_tune_after_block": 4}
    frozen["checkpoint"] = tiny_runs.pretrained(tmp_path_factory)
    at_once = trained("supervised", **frozen)
    chunks = trained("supervised", accum_chunks=4, **frozen)
    check_equal_weights(at_once, chunks)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_chunks_on_two_replicas_have_the_positives_of_the_whole_batch(trained):
    chunks = trained("supcon", 2, accum_chunks=2)
    at_once = trained("supcon")
    lines = [tiny_runs.lines_of(folder / "metrics.jsonl")[0] for folder in (at_once, chunks)]
    assert lines[0].keys() == lines[1].keys()
    # Whether a view has a positive depends on the labels of the whole batch, not of a chunk.
    name = "train/views_without_positive"
    assert lines[0][name] == lines[1][name]
    assert np.isfinite(lines[1]["train/total_loss"])


@pytest.mark.exhaustive
@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_mixing_images_changes_the_loss(trained, mix):
    mixed = trained("supervised", **{mix: 1.0})
    lines = tiny_runs.lines_of(mixed / "metrics.jsonl")
    plain = tiny_runs.lines_of(trained("supervised") / "metrics.jsonl")
    assert lines[0]["train/supervised_loss"] != plain[0]["train/supervised_loss"]
    assert all(np.isfinite(line["train/total_loss"]) for line in lines)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_run_with_large_chunks_takes_several_steps(tmp_path: pathlib.Path) -> None:
    # From about 200 MiB on, TensorFlow's memory optimizer rewrites loops in graphs: with the chunks
    # in such a loop the second step failed.
    # It does not if the CPU is split into devices, as in these tests, hence another process.
    settings = ["--train_batch_size=512", "--accum_chunks=2", "--train_steps=2"]
    settings += ["--resnet_depth=8", "--augmentation=crop"]
    rest = ["--warmup_epochs=0", "--train_summary_steps=1", f"--model_dir={tmp_path}"]
    program = pathlib.Path(__file__).parents[1] / "run.py"
    done = subprocess.run(
        [sys.executable, str(program), "--mode=train", *settings, *rest],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
