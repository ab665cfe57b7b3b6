"""--progressive_resizing: the sizes of the views, and that nothing else of a run changes."""

import contextlib
import io
import shutil

import numpy as np
import pytest
import tiny_runs

from simclr_tf import config as config_lib
from simclr_tf import errors
from simclr_tf.config import resizing as sizes
from simclr_tf.data import pipeline
from simclr_tf.training import averages, placement, resizing

# Two steps with views of 8 px, and two of 12 px.
RESIZED = {
    **tiny_runs.NO_COLOR,
    "image_size": 12,
    "progressive_resizing": "8:50%",
    "train_steps": 4,
    "checkpoint_steps": 1,
    "keep_checkpoint_max": 4,
    "learning_rate": 0.05,
}


pytestmark = pytest.mark.usefixtures("no_export_in_file")


@pytest.fixture(scope="module")
def observed(tmp_path_factory, no_export_in_file):
    """The directory of a run, what it printed, and the step and size of its streams of batches."""
    model_dir, printed, streams = tmp_path_factory.mktemp("resized") / "run", io.StringIO(), []
    photos = tiny_runs.photos(tmp_path_factory)
    make = pipeline.train_batches

    def recorded(source, split, policy, **named):
        streams.append((named["start_step"], policy.image_size))
        return make(source, split, policy, **named)

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(pipeline, "train_batches", recorded)
        assert tiny_runs.main("pretrain", model_dir, photos, **RESIZED) == 0
    return model_dir, printed.getvalue(), streams


@pytest.fixture
def run(observed):
    """The directory of that run; copy it before changing it."""
    return observed[0]


def _config(text, image_size=160):
    return config_lib.Config(progressive_resizing=text, image_size=image_size)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (None, [(160, 1.0)]),
        ("96:30%", [(96, 0.3), (160, 0.7)]),
        ("96:30%, 128:40.5%", [(96, 0.3), (128, 0.405), (160, 0.295)]),
        ("8:99.9%", [(8, 0.999), (160, 0.001)]),
    ],
)
def test_sizes_and_shares_are_read(text, want):
    parts = sizes.parse(text, 160)
    assert [part.size for part in parts] == [size for size, _ in want]
    assert [part.share for part in parts] == pytest.approx([share for _, share in want])


@pytest.mark.parametrize(
    "text", ["", "96", "96:0.3", "96:30", "96:0%", "a:30%", "96:-3%", "9.6:3%", "1e2:3%", "96:30%,"]
)
def test_a_malformed_value_is_refused(text):
    with pytest.raises(errors.UserError, match=r"must be SIZE:SHARE%.*=96:30%,128:40%; got '"):
        sizes.parse(text, 160)


@pytest.mark.parametrize("text", ["160:30%", "192:30%", "7:30%", "128:30%,96:30%", "96:1%,96:1%"])
def test_sizes_that_do_not_ascend_to_the_last_one_are_refused(text):
    with pytest.raises(
        errors.UserError,
        match=r"at least 8 px that ascend .*; give --progressive_resizing= to train",
    ):
        sizes.parse(text, 160)


@pytest.mark.parametrize("text", ["96:100%", "96:60%,128:40%", "96:70%,128:70%"])
def test_shares_that_leave_no_training_are_refused(text):
    with pytest.raises(errors.UserError, match="leaves no training at --image_size=160"):
        sizes.parse(text, 160)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"progressive_resizing": "8:99%"}, ["no step with views of 16 px in a training of 4;"]),
        ({"encoder": "keras:MobileNetV2"}, ["applies only to --encoder=resnet"]),
        (
            {"teacher": "runs/teacher", "objective": "distill", "train_mode": "finetune"},
            ["cannot be used with --teacher", "leave one of them out"],
        ),
    ],
)
def test_networks_that_need_one_size_are_refused(changes, parts, photos, tmp_path, capsys):
    given = {"progressive_resizing": "8:50%", "image_size": 16, **changes}
    assert tiny_runs.main("pretrain", tmp_path / "run", photos, **given) == 2
    message = capsys.readouterr().err
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("text", "total", "want"),
    [
        (None, 10, [(160, 10)]),
        ("96:30%,128:40%", 10, [(96, 3), (128, 7), (160, 10)]),
        ("96:30%,128:40%", 1001, [(96, 300), (128, 701), (160, 1001)]),
        ("96:30%,128:40%", 3, [(96, 1), (128, 2), (160, 3)]),
        ("96:30%", 0, [(96, 0), (160, 0)]),  # Nothing is trained.
    ],
)
def test_phases_are_whole_steps(text, total, want):
    config = _config(text)
    assert resizing.phases(config, total) == want
    of_steps = [resizing.config_at(config, total, step).image_size for step in range(total + 1)]
    expected = [
        size
        for start, (size, end) in zip([0, *(end for _, end in want)], want)
        for _ in range(start, end)
    ]
    assert of_steps == [*expected, 160]


@pytest.mark.parametrize(
    ("text", "total", "size"),
    [
        ("96:1%,128:40%", 10, 96),
        ("96:40%,128:1%", 10, 128),
        ("96:30%,128:69.9%", 100, 160),
        ("96:30%", 1, 96),
    ],
)
def test_a_size_without_a_step_is_refused(text, total, size):
    with pytest.raises(errors.UserError, match=rf"no step with views of {size} px in a training"):
        resizing.phases(_config(text), total)


def test_the_settings_of_a_phase_are_those_of_its_size():
    config = _config("96:50%")
    first = resizing.config_at(config, 10, 0)
    assert first == config_lib.Config(image_size=96)
    config_lib.validate(first)
    assert resizing.config_at(config, 10, 5) is config


@pytest.mark.parametrize("start", [0, 2, 3, 8, 9])
def test_no_call_crosses_the_end_of_a_phase(start, capsys):
    made, called = [], []

    def make(step, end):
        made.append((step, end))

        def train_steps(count):
            called.append(count)
            return averages.Sums(count, 0.0, True, {})

        return train_steps

    phases = [sizes.Phase(8, 3), sizes.Phase(10, 8), sizes.Phase(12, 10)]
    train_steps = resizing.Resizing(make, phases, start)
    step = start
    while step < 10:
        step += train_steps(min(4, 10 - step)).steps
    ends = [phase for phase in phases if phase.end > start]
    assert made == [
        (max(start, begin), phase.end) for begin, phase in zip([0, 3, 8][-len(ends) :], ends)
    ]
    assert sum(called) == 10 - start
    assert max(called) <= 4
    said = capsys.readouterr().out
    for begin, size in ((4, 10), (9, 12)):
        assert (f"From step {begin} on, views have {size} px." in said) == (begin - 1 > start)


def test_views_have_the_size_of_their_step_and_the_run_says_so(observed):
    model_dir, printed, streams = observed
    assert streams == [(0, 8), (2, 12)]
    printed = " ".join(printed.split())
    assert "8 px up to step 2, then 12 px" in printed
    assert "From step 3 on, views have 12 px." in printed
    assert tiny_runs.json_of(model_dir / "architecture.json")["image_size"] == 12
    assert "--progressive_resizing=8:50%" in (model_dir / "flags.txt").read_text()
    metrics = tiny_runs.lines_of(model_dir / "metrics.jsonl")
    assert [line["step"] for line in metrics] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "step", [1, *(pytest.param(step, marks=pytest.mark.exhaustive) for step in (2, 3))]
)
def test_a_run_that_is_interrupted_in_any_phase_resumes_to_the_same_weights(
    run, photos, tmp_path, step
):
    resumed = tmp_path / "resumed"
    shutil.copytree(run, resumed)
    for later in range(step + 1, 5):
        for path in resumed.glob(f"ckpt-{later}.*"):
            path.unlink()
    assert tiny_runs.main("pretrain", resumed, photos, **RESIZED) == 0
    assert tiny_runs.equal(tiny_runs.weights(run, 4), tiny_runs.weights(resumed, 4))


@pytest.mark.exhaustive
def test_the_first_phase_trains_as_a_run_of_its_size(run, photos, tmp_path):
    changes = {**RESIZED, "image_size": 8}
    del changes["progressive_resizing"]
    assert tiny_runs.main("pretrain", tmp_path / "run", photos, **changes) == 0
    for step in (1, 2):
        assert tiny_runs.equal(
            tiny_runs.weights(run, step), tiny_runs.weights(tmp_path / "run", step)
        )
    third = [tiny_runs.weights(folder, 3) for folder in (run, tmp_path / "run")]
    assert not tiny_runs.equal(*third)


def _losses(model_dir):
    return [line["train/contrast_loss"] for line in tiny_runs.lines_of(model_dir / "metrics.jsonl")]


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"num_virtual_cpus": 2}, id="two"),
        pytest.param({"cache_dataset": True}, id="cached"),
    ],
)
def test_replicas_and_images_in_memory_change_nothing(run, photos, tmp_path, changes):
    model_dir = tmp_path / "run"
    assert tiny_runs.main("pretrain", model_dir, photos, **RESIZED, **changes) == 0
    assert _losses(model_dir) == pytest.approx(_losses(run), rel=1e-4)
    weights = tiny_runs.part(tiny_runs.weights(model_dir), "encoder")
    for name, expected in tiny_runs.part(tiny_runs.weights(run), "encoder").items():
        np.testing.assert_allclose(weights[name], expected, rtol=1e-3, atol=2e-4, err_msg=name)


@pytest.mark.exhaustive
def test_the_device_makes_views_of_the_same_sizes(tmp_path):
    # Of images of one size, the device also makes the crops.
    changes = {**RESIZED, "dataset": "digits", "train_split": "train[:36]"}
    for place in ("host", "device"):
        given = {**changes, "augment_on": place}
        assert tiny_runs.main("pretrain", tmp_path / place, None, **given) == 0
    assert _losses(tmp_path / "device") == pytest.approx(_losses(tmp_path / "host"), rel=1e-4)


@pytest.mark.exhaustive
def test_each_phase_tries_the_accelerator_anew(photos, tmp_path, monkeypatch):
    ends = []

    class Trial(placement.Trial):
        def __init__(self, make, start_step, *, total_steps, batch_size):
            ends.append((start_step, total_steps))
            super().__init__(make, start_step, total_steps=total_steps, batch_size=batch_size)

    monkeypatch.setattr(placement, "Trial", Trial)
    monkeypatch.setattr("simclr_tf.distribute.has_accelerator", lambda strategy: True)
    assert tiny_runs.main("pretrain", tmp_path / "run", photos, **RESIZED) == 0
    assert ends == [(0, 2), (2, 4)]
