"""A step that is not finite: what is said about it, what is saved, and how it is replayed."""

from __future__ import annotations

import numpy as np
import pytest
import replicas as replicas_lib
import tensorflow as tf
import test_steps
import tiny_runs

import run as program
from simclr_tf.commands import replay
from simclr_tf.data import pipeline
from simclr_tf.runs import directory
from simclr_tf.training import layer_outputs

BAD = 5  # The step whose images are too large for the encoder.


@pytest.fixture(scope="module")
def failed_run(tmp_path_factory):
    """A run that failed in the middle of a call of several steps, and its message."""
    make, model_dir = pipeline.train_batches, tmp_path_factory.mktemp("failed") / "run"

    def with_huge_images(*args, start_step=0, **named):
        batches = make(*args, start_step=start_step, **named)

        def enlarge(number, batch):
            huge = tf.where(number + start_step == BAD - 1, 1e25, 1.0)
            return {**batch, "views": batch["views"] * huge}

        return batches.enumerate().map(enlarge)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "train_batches", with_huge_images)
        patch.setattr("simclr_tf.commands.train._show_views", lambda *_: None)
        patch.setattr("simclr_tf.training.loop._steps_per_call", lambda *_: 4)
        patch.setattr("simclr_tf.runs.machine.instructions", frozenset)
        patch.setattr("sys.stderr", printed := _Printed())
        code = tiny_runs.main(
            "pretrain",
            model_dir,
            tiny_runs.photos(tmp_path_factory),
            **tiny_runs.NO_COLOR,
            encoder="tiny_encoders:squaring",
            mixed_precision="auto",
            train_steps=6,
            checkpoint_steps=3,
            train_summary_steps=6,
        )
    return code, model_dir, printed.text


class _Printed:
    """Replaces sys.stderr and keeps what is written."""

    text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None: ...


def test_the_message_names_the_step_its_numbers_and_the_first_layer(failed_run):
    code, model_dir, message = failed_run
    assert code == 2
    assert message.startswith(f"error: The loss of step {BAD} is not finite (gradient norm nan, ")
    assert "learning rate 0.003906" in message
    layer = message.split("the first layer whose output is not finite is ")[1].split(";")[0]
    assert layer.startswith("encoder/") and layer.endswith("/square")
    assert f"--mode=replay --model_dir={model_dir} runs step {BAD};" in message
    assert f"the last complete checkpoint is {model_dir}/ckpt-3. Lower --learning_rate" in message
    assert message.count("\n") == 1


def test_the_state_before_the_step_and_its_batch_are_saved(failed_run):
    _, model_dir, _ = failed_run
    folder = model_dir / directory.BAD_STEP
    with np.load(folder / "batch.npz", allow_pickle=False) as batch:
        assert batch["views"].shape == (8, 2, 8, 8, 3) and batch["views"].max() > 1e24
        assert sorted(set(batch["label"])) == [0, 1, 2]
    facts = tiny_runs.json_of(folder / "step.json")
    assert (facts["step"], facts["loss"], facts["seed"], facts["replicas"]) == (BAD, "nan", 0, 1)
    # It is run again in the same arithmetic, on whatever machine.
    for flags, precision in ((model_dir, "auto"), (folder, "none")):
        assert f"--mixed_precision={precision}\n" in (flags / "flags.txt").read_text()
    saved = tf.train.load_checkpoint(str(folder / "state"))
    for name in saved.get_variable_to_shape_map():
        value = saved.get_tensor(name)
        if "iteration" in name or "global_step" in name:
            assert value == BAD - 1, name
        elif not name.startswith("_CHECKPOINTABLE") and "moving_" not in name:
            assert np.all(np.isfinite(value)), name


def test_replay_runs_the_step_again_and_lists_the_layers(failed_run, capsys):
    _, model_dir, _ = failed_run
    before = tiny_runs.snapshot(model_dir)
    capsys.readouterr()
    assert program.main(["run.py", "--mode=replay", f"--model_dir={model_dir}"]) == 0
    printed = capsys.readouterr().out
    assert f"Step {BAD}: loss nan, gradient norm nan, learning rate 0.003906" in printed
    assert "The result is the same as in training." in printed
    rows = [line.split("│") for line in printed.splitlines() if "│" in line]
    finite = {row[1].strip(): row[4].strip() for row in rows}
    (convolution,) = (name for name in finite if name.endswith("/convolution"))
    (square,) = (name for name in finite if name.endswith("/square"))
    assert finite["views"] == finite[convolution] == "yes"
    assert finite[square].startswith("no (")
    assert list(finite).index(convolution) < list(finite).index(square)
    assert tiny_runs.snapshot(model_dir) == before


def test_replay_reports_that_training_has_passed_the_step(tmp_path, capsys):
    replay._say_if_passed(str(tmp_path), BAD)
    for step in (BAD - 1, BAD):
        (tmp_path / f"ckpt-{step}.index").write_text("")
        (tmp_path / f"ckpt-{step}.data-00000-of-00001").write_text("")
        replay._say_if_passed(str(tmp_path), BAD)
    printed = capsys.readouterr().out
    assert printed.count("has since been trained to step") == 1
    assert f"to step {BAD}." in printed


def test_replay_without_a_saved_step_is_refused(tmp_path, capsys):
    assert program.main(["run.py", "--mode=replay", f"--model_dir={tmp_path}"]) == 2
    assert "so there is no step to replay" in capsys.readouterr().err
    assert program.main(["run.py", "--mode=replay"]) == 2
    assert "--mode=replay needs --model_dir" in capsys.readouterr().err


@pytest.mark.parametrize(("replicas", "chunks"), [(1, 1), (2, 2)])
def test_the_ranges_are_over_all_replicas_and_chunks(replicas, chunks):
    strategy = replicas_lib.strategy(replicas)
    learner = test_steps._learner(strategy, "nt_xent", encoder="tiny_encoders:squaring")
    data = test_steps._data(2, 8)
    data["views"][5, 0] *= 1e25  # In one chunk of one replica.
    batches = tf.data.Dataset.from_tensor_slices(data).batch(8 // replicas, drop_remainder=True)
    batch = next(iter(strategy.distribute_datasets_from_function(lambda _: batches)))
    task = test_steps._task(learner.model, "nt_xent")
    before = [variable.numpy() for variable in learner.model.variables]
    outputs = layer_outputs.measure(learner.model, task, strategy, batch, chunks=chunks)
    assert outputs[0].name == "views"
    assert outputs[0].low == data["views"].min() and outputs[0].high == data["views"].max()
    bad = layer_outputs.first_bad(outputs)
    assert bad is not None and bad.name.endswith("/square") and bad.bad == 3 * 3 * 4
    for variable, value in zip(learner.model.variables, before):
        np.testing.assert_array_equal(variable.numpy(), value)
