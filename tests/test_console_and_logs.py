"""Files of metrics, images of views, progress lines, warnings and durations."""

import dataclasses
import json
import math
import types
import typing

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf import config, console, storage
from simclr_tf.report import contact_sheet, overview
from simclr_tf.runs import metrics_log
from simclr_tf.training import averages, collapse, feature_metrics, input_wait, schedules


def test_metrics_are_json_lines_and_scalars(tmp_path):
    log = metrics_log.MetricsLog(str(tmp_path))
    log.write(3, {"train/total_loss": 1 / 3})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 3, "train/total_loss": 0.3333333}]
    events = [
        value
        for path in tmp_path.glob("events*")
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    ]
    assert [value.tag for value in events] == ["train/total_loss"]


def test_lines_after_the_last_checkpoint_and_incomplete_lines_are_removed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    metrics_log.MetricsLog(str(tmp_path), from_step=2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_damaged_lines_in_the_middle_are_removed_with_a_warning(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st\n[2]\n{"step": 2}\n')
    metrics_log.MetricsLog(str(tmp_path), from_step=2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
    assert "metrics.jsonl had 2 damaged lines" in capsys.readouterr().out


@pytest.mark.parametrize(("side", "drawn"), [(4, 96), (28, 112), (96, 96), (130, 130)])
def test_small_images_are_enlarged_on_a_contact_sheet_without_smoothing(side, drawn):
    images = np.random.default_rng(0).integers(0, 256, (2, 3, side, side, 3)).astype(np.uint8)
    sheet = contact_sheet.draw([("one", images[0] / 255), ("two", images[1] / 255)])
    assert sheet.shape == (6 + 2 * (18 + drawn + 6), 6 + 3 * (drawn + 6), 3)
    factor = drawn // side
    for row, column in ((0, 0), (1, 2)):
        y, x = 6 + row * (18 + drawn + 6) + 18, 6 + column * (drawn + 6)
        shown = sheet[y : y + drawn, x : x + drawn]
        for shift in {0, factor - 1}:  # Every pixel is repeated from its first to its last copy.
            np.testing.assert_array_equal(shown[shift::factor, shift::factor], images[row, column])
    for top in (6, 6 + 18 + drawn + 6):
        assert sheet[top : top + 18].min() < 100  # The captions.


def test_a_long_caption_fits_on_a_contact_sheet():
    image = np.zeros((1, 96, 96, 3))
    sheet = contact_sheet.draw([("only /a/long/path/of/a/run is right " * 3, image)])
    caption = sheet[:20]
    assert sheet.shape[1] > 400
    assert caption[:, -150:-6].min() < 100  # It reaches the right end,
    assert caption[:, -6:].min() == 255  # and is not cut there.


def test_images_are_written_as_png(tmp_path):
    image = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    storage.write_png(str(tmp_path / "x.png"), image)
    np.testing.assert_array_equal(tf.io.decode_png((tmp_path / "x.png").read_bytes()), image)


@pytest.fixture(params=["no variable", "FORCE_COLOR"])
def no_terminal(request, monkeypatch):
    """Standard output that is not a terminal, also where FORCE_COLOR is set, as in notebooks."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    if request.param == "FORCE_COLOR":
        monkeypatch.setenv("FORCE_COLOR", "1")


@pytest.mark.usefixtures("no_terminal")
def test_progress_off_a_terminal_is_plain_lines(capsys):
    with console.Progress("step", 1200) as progress:
        progress.update(600, "loss 1.0")
        progress.update(1200, "loss 0.5")
    assert capsys.readouterr().out == "step 1,200/1,200  loss 0.5\n"


@pytest.mark.parametrize(
    ("slow_start", "left"), [(False, ["2 min left", "30 s left"]), (True, ["", "1 s left"])]
)
def test_the_time_left_may_leave_out_a_slow_start(slow_start, left, monkeypatch, capsys):
    times = iter([0, 60, 61])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(times))
    with console.Progress("step", 99, line_every=0, slow_start=slow_start) as progress:
        for done in (33, 66):
            progress.update(done, "note")
    assert [
        line.partition("note")[2].strip() for line in capsys.readouterr().out.splitlines()
    ] == left


def test_columns_of_numbers_are_right_aligned_and_columns_of_text_left_aligned(capsys):
    rows = [["a", "9.5%", "short"], ["b", "10.0%", "a longer text"]]
    console.table("scores", ["name", "top-1", "note"], rows)
    first = next(line for line in capsys.readouterr().out.splitlines() if "9.5%" in line)
    cells = [cell[1:-1] for cell in first.strip("│").split("│")]
    assert cells == ["a   ", " 9.5%", "short        "]


@pytest.mark.usefixtures("no_terminal")
def test_work_of_unknown_length_is_one_line_of_a_log(capsys):
    with console.working("Exporting the SavedModel"):
        pass
    assert capsys.readouterr().out == "Exporting the SavedModel: 0 s\n"


@pytest.mark.parametrize("files", [["result.json"], ["result.json", "saved_model/1", "views.png"]])
def test_an_evaluation_lists_the_files_that_exist(tmp_path, capsys, files):
    for name in files:
        (tmp_path / name).mkdir(parents=True)
    source = types.SimpleNamespace(name="toy")
    run = types.SimpleNamespace(
        model_dir=str(tmp_path),
        config=config.Config(),
        data=types.SimpleNamespace(source=source, train_split="train", eval_split="test"),
    )
    result = {"global_step": 1, "eval/examples": 7}
    overview.after_evaluation(typing.cast(typing.Any, run), result, kept=(), outcomes={})
    listed = "result.json" if len(files) == 1 else "result.json, saved_model/, views.png"
    assert capsys.readouterr().out.endswith(f"Files in {tmp_path}: {listed}.\n")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations_are_printed_in_readable_units(seconds, text):
    assert console.duration(seconds) == text


def _sums(**metrics):
    totals = {"contrast_loss": 1.0, "contrast_acc": 0.5, "total_loss": 2.0}
    totals |= {"feature_spread": 0.5, "feature_rank": 4.0, "negative_cosine": 0.1}
    totals = {f"train/{name}": value for name, value in {**totals, **metrics}.items()}
    return averages.Sums(steps=1, waited=0.25, finite=True, totals=totals)


def _watch():
    return averages.Averages(schedules.Plan(1000, 100, 50, 0, 10, 10, 0.1), chance=math.log(199))


def test_a_progress_line_has_the_loss_chance_level_speed_and_input_wait():
    watch = _watch()
    watch.add(_sums(), seconds=0.5)
    note = watch.summary()
    for words in (
        "loss 1.000 (chance 5.293)",
        "contrastive acc. 50.0%",
        "200 images/s",
        "wait 50%",
    ):
        assert words in note


def _records(watch, spreads, **metrics):
    """Makes one record per spread, of one step each."""
    for spread in spreads:
        watch.add(_sums(feature_spread=spread, **metrics), seconds=1)
        watch.flush()


def test_a_collapse_is_reported_once_after_several_records(capsys):
    watch, spread = _watch(), float(feature_metrics.spread(tf.ones([8, 16])))
    _records(watch, [spread] * 4)
    assert capsys.readouterr().out == ""
    _records(watch, [spread] * 10)
    out = capsys.readouterr().out
    assert out.count("warning: The representation may have collapsed: ") == 1
    assert "the features of different images were nearly equal" in out
    assert "in 5 records in a row" in out


@pytest.mark.parametrize(
    ("seconds", "warned"),
    [
        ([100, 59, 59], False),  # The first record is ignored, and there is one window of a minute.
        ([1, 30, 40, 100, 100, 100], True),
        ([1, 2000, 2000], False),  # A wait of 0.25 s, which each record has, is a small fraction.
        ([1, 60, 2000, 60], False),
        ([1, 2000, 2000, 60, 60], True),  # Also after hours without a wait.
    ],
)
def test_an_input_that_is_too_slow_is_reported_once(seconds, warned, capsys):
    watch = _watch()
    for one in seconds:
        sums = dataclasses.replace(_sums(), waited=0.25 if one == 2000 else one / 2)
        watch.add(sums, seconds=one)
        watch.flush()
    warning = "warning: Training waited for images during 50% of the time"
    assert capsys.readouterr().out.count(warning) == warned


@pytest.mark.parametrize(
    ("settings", "accelerator", "flags"),
    [
        ({}, True, "--cache_dataset or --data_service"),  # auto tries the accelerator itself.
        ({"augment_on": "host"}, False, "--cache_dataset or --data_service"),
        (
            {"augment_on": "host"},
            True,
            "--augment_on=device or --cache_dataset or --data_service",
        ),
        ({"augment_on": "device", "cache_dataset": True}, True, "--data_service"),
        (
            {"cache_dataset": True, "data_service": "grpc://host:1"},
            True,
            "Faster storage or more processors",
        ),
    ],
)
def test_the_warning_of_a_slow_input_names_flags_that_are_not_in_effect(
    settings, accelerator, flags
):
    found = input_wait.remedies(config.Config(**settings), accelerator=accelerator)
    assert input_wait.warning(0.5, found) == (
        "Training waited for images during 50% of the time: the input is slower than the network. "
        f"{flags} may help."
    )
    assert input_wait.warning(0.2, found) is None


def _collapse_of(features, *, judges_rank=True):
    """Returns what is warned of a run whose features (n, f) are these."""
    features = tf.constant(features, tf.float32)
    unit = tf.math.l2_normalize(features, -1).numpy()
    means = {
        collapse.SPREAD: float(feature_metrics.spread(features)),
        collapse.RANK: float(feature_metrics.rank(features)),
        collapse.NEGATIVE_COSINE: float(np.mean((unit @ unit.T)[~np.eye(len(unit), dtype=bool)])),
    }
    watch = collapse.Watch(warmup_steps=0, judges_rank=judges_rank)
    for step in range(1, 9):
        watch.record(step, means)


def test_features_on_a_line_are_a_collapse_that_their_spread_does_not_show(capsys):
    rng = np.random.default_rng(0)
    line = rng.normal(size=[64, 1]) * rng.normal(size=16) + 0.01 * rng.normal(size=[64, 16])
    assert float(feature_metrics.spread(tf.constant(line, tf.float32))) > 0.5
    _collapse_of(line)
    assert "differed in one direction only (train/feature_rank 1" in capsys.readouterr().out
    _collapse_of(line, judges_rank=False)  # Two classes that are learned are on a line.
    _collapse_of(rng.normal(size=[64, 2]) @ rng.normal(size=[2, 16]))
    assert capsys.readouterr().out == ""


def test_equal_projections_are_a_collapse(capsys):
    _records(_watch(), [0.5] * 5, negative_cosine=0.9999)
    assert "the projections of different images were nearly equal" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("reads_labels", "images", "expected"), [(False, 8, True), (True, 64, False), (False, 4, False)]
)
def test_a_line_is_a_collapse_of_many_images_without_labels(reads_labels, images, expected):
    assert collapse.judges_rank(reads_labels=reads_labels, images=images) is expected


@pytest.mark.parametrize(
    ("spreads", "loss"),
    [
        ([0.6] * 20, 8.9),  # At temperature 0.1; the loss at chance level is 5.3.
        ([0.6] * 20, 5.293),
        ([0.012, 0.135, 0.2, 0.3, 0.3, 0.3, 0.3], 5.29),  # An untrained Keras network.
        ([0.01, 0.01, 0.01, 0.01, 0.1] * 3, 5.0),
    ],
)
def test_a_run_that_has_not_collapsed_prints_no_warning(capsys, spreads, loss):
    _records(_watch(), spreads, contrast_loss=loss)
    assert capsys.readouterr().out == ""


def test_no_collapse_is_reported_during_warm_up(capsys):
    watch = averages.Averages(schedules.Plan(1000, 100, 50, 20, 10, 10, 0.1), chance=None)
    _records(watch, [0.001] * 24)
    assert capsys.readouterr().out == ""
    _records(watch, [0.001])
    assert "may have collapsed" in capsys.readouterr().out


@pytest.mark.parametrize(("columns", "width"), [(None, 120), ("200", 200), ("60", 60)])
def test_a_log_is_as_wide_as_the_columns_variable_says(columns, width, capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS")
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    console.facts("a run", {"path": "x" * 300})
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) == width
    assert sum(line.count("x") for line in lines) == 300
