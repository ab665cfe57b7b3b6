"""Each mode of the program, from its command line to the files that it writes."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import shutil

import numpy as np
from pyarrow import parquet
import pytest
import tensorflow as tf
import tiny_runs

from flags import command_line
import run
from simclr_tf import config
from simclr_tf.data import pipeline, sources
from simclr_tf.evaluation import features
from simclr_tf.serving import export
from simclr_tf.training import loop

SCORES = {
    "eval/label_top_1_accuracy",
    "eval/label_top_5_accuracy",
    "linear_eval/top_1_accuracy",
    "linear_eval/top_5_accuracy",
    "baseline/raw_pixels/top_1_accuracy",
    "baseline/random_encoder/top_1_accuracy",
    "baseline/random_encoder/zero_gammas/top_1_accuracy",
    "baseline/random_encoder/unit_gammas/top_1_accuracy",
}
KEYS = {"global_step", "train/seconds", "train/images_per_second", *SCORES}
METRICS = {
    "train/contrast_loss",
    "train/contrast_acc",
    "train/contrast_entropy",
    "train/chance_loss",
    "train/feature_spread",
    "train/feature_rank",
    "train/positive_cosine",
    "train/negative_cosine",
    "train/alignment",
    "train/uniformity",
    "train/supervised_loss",
    "train/supervised_acc",
    "train/weight_decay",
    "train/total_loss",
    "train/gradient_norm",
    "train/images_per_second",
    "train/input_wait",
    "learning_rate",
}

NO_TRAINING = {"train_steps": 0, "train_epochs": 0}


@pytest.fixture(scope="module")
def full_run(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[pathlib.Path, str]:
    """A run directory of --mode=train_then_eval with every augmentation, and its output."""
    model_dir = tmp_path_factory.mktemp("whole") / "run"
    photos = tiny_runs.photos(tmp_path_factory)
    capture = pytest.MonkeyPatch()
    printed: list[str] = []
    with capture.context() as patch:
        patch.setattr("sys.stdout", _Tee(printed))
        assert tiny_runs.main("train_then_eval", model_dir, photos, evaluations="all") == 0
    return model_dir, "".join(printed)


class _Tee:
    """Replaces sys.stdout and keeps what is written."""

    def __init__(self, kept: list[str]) -> None:
        self.write = kept.append

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return False


def test_train_then_eval_writes_the_documented_results(full_run):
    result = tiny_runs.json_of(full_run[0] / "result.json")
    assert result.keys() >= KEYS
    assert result["global_step"] == 4
    assert result["train/seconds"] > 0
    rate = 4 * 8 / result["train/seconds"]
    assert result["train/images_per_second"] == pytest.approx(rate, rel=1e-2)
    for name in SCORES:
        assert 0 <= result[name] <= 1
    # The top five of three classes are all of them. The classes differ in colour.
    assert result["eval/label_top_5_accuracy"] == result["linear_eval/top_5_accuracy"] == 1
    assert result["baseline/raw_pixels/top_1_accuracy"] > 0.9
    assert tiny_runs.json_of(full_run[0] / "result_4.json") == result


def test_the_table_at_the_end_has_the_numbers_of_result_json(full_run):
    model_dir, printed = full_run
    result = tiny_runs.json_of(model_dir / "result.json")
    for label, name in (
        ("linear evaluation of the encoder", "linear_eval/top_1_accuracy"),
        ("online linear head", "eval/label_top_1_accuracy"),
        ("linear evaluation, untrained encoder", "baseline/random_encoder/top_1_accuracy"),
        ("linear evaluation, raw pixels", "baseline/raw_pixels/top_1_accuracy"),
    ):
        row = next(line for line in printed.splitlines() if label in line)
        assert re.findall(r"([\d.]+)%", row)[0] == f"{100 * result[name]:.1f}"


def test_the_table_at_the_start_describes_the_run(full_run):
    printed = full_run[1]
    for words in (
        "36 images in train, 18 in test",
        "3: blue, green, red",
        "8 px",
        "3x3, no max-pool; chosen by image size",
        "8 images over 1 replica",
        "14 negatives per anchor",
        "chance loss 2.708",
        "4 (0.889 epochs)",
        "peak rate 0.01562",
        "from scratch: initial weights of seed 0",
    ):
        assert words in printed, words


def test_a_run_directory_has_the_documented_files(full_run):
    model_dir = full_run[0]
    names = {path.name for path in model_dir.iterdir()}
    assert names >= {"architecture.json", "flags.txt", "metrics.jsonl", "views.png", "checkpoint"}
    assert names >= {"ckpt-2.index", "ckpt-4.index", "result.json", "result_4.json"}
    assert (model_dir / "saved_model" / "4" / "saved_model.pb").exists()
    # Written once: evaluating, or training on, does not change where a run started.
    start = tiny_runs.json_of(model_dir / "start.json")
    assert start == {"initial_weights": ["from scratch: initial weights of seed 0"]}
    assert not [name for name in names if "partial" in name or "temp" in name or "writable" in name]
    architecture = tiny_runs.json_of(model_dir / "architecture.json")
    assert architecture["class_names"] == list(tiny_runs.CLASSES)
    assert architecture["resnet_depth"] == 8
    sheet = tf.io.decode_png((model_dir / "views.png").read_bytes()).numpy()
    # Two views of eight images, each under a caption.
    assert sheet.shape == (6 + 2 * (18 + 96 + 6), 6 + 8 * (96 + 6), 3)


def test_evaluations_write_tables_figures_and_predictions(full_run):
    model_dir, printed = full_run
    names = {path.name for path in (model_dir / "evaluation" / "4").iterdir()}
    assert names - {"mistakes.png"} == {
        *("confusion.csv", "confusion.svg", "per_class.csv", "reliability.svg"),
        *("risk_coverage.svg", "probes.csv", "probes.svg", "neighbours.png"),
    }
    result = tiny_runs.json_of(model_dir / "result.json")
    # The map needs more images, and those on other images need some.
    for name in set(config.EVALUATIONS) - {"map", "robustness", "shifts", "ood"}:
        assert any(key.startswith(f"{name}/") for key in result), name
    predictions = parquet.read_table(model_dir / "predictions.parquet").to_pylist()
    assert len(predictions) == 18
    for row in predictions:  # The images of a class are in a folder of its name.
        assert row["name"].startswith(f"test/{row['label']}/")
    right = np.mean([row["label"] == row["prediction"] for row in predictions])
    assert right == pytest.approx(result["linear_eval/top_1_accuracy"])
    assert ("mistakes.png" in names) == (right < 1)
    low, high = result["linear_eval/top_1_accuracy_95"]
    assert f"{100 * right:.1f}% ({100 * low:.1f}-{100 * high:.1f})" in printed


def test_evaluations_that_lack_something_are_left_out_of_all_with_the_reason(full_run):
    _, printed = full_run
    for name, reason in (("robustness", "--image_size=8"), ("shifts", "--shift_datasets")):
        assert re.search(f"Left out of --evaluations=all: {name}, because .*{reason}", printed)
    assert printed.count("Left out of --evaluations=all") == 3


@pytest.mark.exhaustive
def test_labels_of_the_evaluation_split_change_nothing_but_scores(full_run, tmp_path, monkeypatch):
    """Evaluates again with the labels of the evaluation split permuted."""
    model_dir = pathlib.Path(shutil.copytree(full_run[0], tmp_path / "run"))
    extract = features.extract

    def permuted(network, source, split, **arguments):
        found = extract(network, source, split, **arguments)
        if split != "test":
            return found
        return dataclasses.replace(found, labels=np.roll(found.labels, 1))

    monkeypatch.setattr(features, "extract", permuted)
    arguments = ["run.py", "--mode=eval", f"--model_dir={model_dir}", "--nountrained_baselines"]
    assert run.main([*arguments, "--evaluations=calibration"]) == 0
    before, after = (
        parquet.read_table(folder / "predictions.parquet").to_pydict()
        for folder in (full_run[0], model_dir)
    )
    assert before["label"] != after["label"]
    for name in ("name", "prediction", "probability"):
        assert before[name] == after[name]
    results = [tiny_runs.json_of(folder / "result.json") for folder in (full_run[0], model_dir)]
    for name in ("linear_eval/l2_inverse_strength", "calibration/temperature"):
        assert results[0][name] == results[1][name]


def test_the_flagfile_of_a_run_reproduces_its_settings(full_run, photos, tmp_path):
    parsed = command_line.parse(["run.py", f"--flagfile={full_run[0]}/flags.txt"])
    assert parsed.notes == ()
    arguments = tiny_runs.arguments("train_then_eval", full_run[0], photos)
    want = command_line.parse([*arguments, "--evaluations=all"]).config
    assert parsed.config == dataclasses.replace(want, eval_split="test")
    assert set(config.Config.__dataclass_fields__) == set(dataclasses.asdict(parsed.config))


def test_every_step_is_recorded_with_the_documented_metrics(full_run):
    lines = tiny_runs.lines_of(full_run[0] / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    for line in lines:
        assert line.keys() == {"step", *METRICS}
        assert all(np.isfinite(value) for value in line.values())
        assert line["train/chance_loss"] == pytest.approx(np.log(15), rel=1e-6)
    rates = [line["learning_rate"] for line in lines]
    want = [0.5 * 8 / 256 * (1 + np.cos(np.pi * step / 4)) / 2 for step in range(4)]
    np.testing.assert_allclose(rates, want, rtol=1e-5)


def test_tensorboard_gets_the_scalars_and_an_image_of_the_views(full_run):
    scalars: dict[str, list[int]] = {}
    images = []
    for path in full_run[0].glob("events.out.tfevents.*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "images":
                    images.append((value.tag, event.step))
                else:
                    scalars.setdefault(value.tag, []).append(event.step)
    assert images == [("train/views", 0)]
    assert scalars == {name: [1, 2, 3, 4] for name in METRICS}


def test_eval_needs_only_the_run_directory(full_run, capsys):
    model_dir = full_run[0]
    before = tiny_runs.json_of(model_dir / "result.json")
    files = tiny_runs.snapshot(model_dir, ["ckpt*", "flags.txt", "architecture.json"])
    (model_dir / "result.json").unlink()
    arguments = ["run.py", "--mode=eval", f"--model_dir={model_dir}", "--evaluations=none"]
    assert run.main(arguments) == 0
    after = tiny_runs.json_of(model_dir / "result.json")
    for name in SCORES | {"global_step", "train/seconds", "train/images_per_second"}:
        assert after[name] == before[name]
    assert "digits" not in capsys.readouterr().out
    assert tiny_runs.snapshot(model_dir, ["ckpt*", "flags.txt", "architecture.json"]) == files


def test_an_evaluation_keeps_the_numbers_that_it_does_not_measure_again(full_run, tmp_path, capsys):
    model_dir = pathlib.Path(shutil.copytree(full_run[0], tmp_path / "run"))
    before = tiny_runs.json_of(model_dir / "result.json")
    assert run.main(["run.py", "--mode=eval", f"--model_dir={model_dir}", "--nolinear_eval"]) == 0
    after = tiny_runs.json_of(model_dir / "result.json")
    assert {**after, "eval/seconds": 0} == {**before, "eval/seconds": 0}
    assert tiny_runs.json_of(model_dir / "result_4.json") == after
    printed = capsys.readouterr().out
    assert re.search(
        "From an earlier evaluation of the same weights: linear evaluation of the encoder, linear "
        r"evaluation, untrained encoder \((zero|unit) gammas\), linear evaluation, raw pixels\.",
        printed,
    )
    # All rows are in the table.
    assert len(re.findall(r"[\d.]+% \([\d.]+-[\d.]+\) *│ +[\d.]+%", printed)) == 4


@pytest.mark.exhaustive
def test_numbers_of_another_step_are_not_kept(full_run, tmp_path):
    model_dir = pathlib.Path(shutil.copytree(full_run[0], tmp_path / "run"))
    of_step_4 = (model_dir / "result_4.json").read_text()
    for path in model_dir.glob("ckpt-4*"):
        path.unlink()
    assert run.main(["run.py", "--mode=eval", f"--model_dir={model_dir}", "--nolinear_eval"]) == 0
    result = tiny_runs.json_of(model_dir / "result.json")
    assert result["global_step"] == 2
    assert SCORES & result.keys() == {
        "eval/label_top_1_accuracy",
        "eval/label_top_5_accuracy",
    }
    assert tiny_runs.json_of(model_dir / "result_2.json") == result
    assert (model_dir / "result_4.json").read_text() == of_step_4


@pytest.mark.exhaustive
@pytest.mark.parametrize("change", ["data", "labels", "weights", "damaged file"])
def test_numbers_of_other_data_or_weights_of_the_same_step_are_not_kept(
    full_run, tmp_path, capsys, change
):
    model_dir = pathlib.Path(shutil.copytree(full_run[0], tmp_path / "run"))
    flags = ["--eval_steps=1"] if change == "data" else []
    path = model_dir / "result_4.json"
    if change in ("labels", "weights"):
        name = {"labels": "eval_labels"}.get(change, change)
        path.write_text(re.sub(rf'"{name}": "\w+"', f'"{name}": "0123"', path.read_text()))
    elif change == "damaged file":
        path.write_text(path.read_text()[:50])
    arguments = ["run.py", "--mode=eval", f"--model_dir={model_dir}", "--nolinear_eval", *flags]
    assert run.main(arguments) == 0
    printed = " ".join(capsys.readouterr().out.split())  # A title may have two lines.
    result = tiny_runs.json_of(path)
    assert "baseline/raw_pixels/top_1_accuracy" not in result
    assert "linear_eval/top_1_accuracy" not in result
    assert result["eval/examples"] == (16 if flags else 18)
    assert f"({result['eval/examples']} images), step 4" in printed
    # Its tables and predictions are gone, too; the numbers can still be looked up.
    assert not (model_dir / "evaluation").exists() or not any((model_dir / "evaluation").iterdir())
    assert not (model_dir / "predictions.parquet").exists()
    if change == "damaged file":
        assert f"{path} was damaged and is replaced." in printed
    else:
        assert f"{path} was an evaluation of other weights or data, and is replaced" in printed
        earlier = tiny_runs.json_of(model_dir / "result_4.earlier.json")
        assert "baseline/raw_pixels/top_1_accuracy" in earlier


@pytest.mark.exhaustive
@pytest.mark.usefixtures("no_export")
def test_the_images_that_a_seed_held_out_are_evaluated_with_a_checkpoint(photos, tmp_path, capsys):
    flat, trained, new = photos / "train", tmp_path / "trained", tmp_path / "new"
    assert tiny_runs.main("train", trained, flat, seed=5, train_steps=1) == 0
    arguments = ["run.py", "--mode=eval", f"--checkpoint={trained}", f"--model_dir={new}"]
    assert run.main([*arguments, "--evaluations=none"]) == 0
    assert "--seed=5" in capsys.readouterr().out
    found = parquet.read_table(new / "predictions.parquet").to_pydict()["name"]
    held_out = [
        sources.open_source("image_folder", data_dir=str(flat), seed=seed).example_names(
            "validation"
        )
        for seed in (5, 0)
    ]
    assert sorted(found) == sorted(held_out[0]) != sorted(held_out[1])


@pytest.mark.exhaustive
def test_a_checkpoint_is_evaluated_on_the_data_of_its_run(pretrained, photos, tmp_path, capsys):
    arguments = ["run.py", "--mode=eval", f"--checkpoint={pretrained}/ckpt-2", "--nolinear_eval"]
    arguments += [f"--model_dir={tmp_path}/new", "--eval_batch_size=5", "--eval_steps=1"]
    assert run.main(arguments) == 0
    printed = capsys.readouterr().out
    (note,) = re.findall(r"Settings taken from (.*)\.", printed)
    assert note.startswith(f"{pretrained}/ckpt-2 (checkpoint of step 2): ")
    assert note.endswith(f"--dataset=image_folder, --data_dir={photos}, --eval_split=test")
    assert "image_folder, split test (5 images), step 2" in " ".join(printed.split())
    result = tiny_runs.json_of(tmp_path / "new" / "result.json")
    assert (result["global_step"], result["eval/examples"]) == (2, 5)
    assert tiny_runs.json_of(tmp_path / "new" / "result_2.json") == result
    assert "train/seconds" not in result  # The time belongs to the other run.


@pytest.mark.exhaustive
def test_eval_uses_the_evaluation_split_of_the_run(pretrained, photos, capsys):
    text = (pretrained / "flags.txt").read_text()
    (pretrained / "flags.txt").write_text(
        text.replace("--eval_split=test\n", "--eval_split=test[:50%]\n")
    )
    assert run.main(["run.py", "--mode=eval", f"--model_dir={pretrained}"]) == 0
    assert "split test[:50%] (9 images)" in capsys.readouterr().out
    assert tiny_runs.json_of(pretrained / "result.json")["eval/examples"] == 9


@pytest.mark.exhaustive
def test_pretraining_on_unlabelled_images_reports_why_it_is_not_evaluated(
    tmp_path, tmp_path_factory, capsys, no_export, monkeypatch
):
    exported: list[int] = []
    monkeypatch.setattr(export, "export", lambda *args, **_: exported.append(args[2]) or "")
    unlabelled = tiny_runs.unlabelled_photos(tmp_path_factory)
    model_dir = tmp_path / "run"
    changes = {**tiny_runs.NO_COLOR, "train_steps": 2}
    assert tiny_runs.main("train_then_eval", model_dir, unlabelled, **changes) == 0
    printed = capsys.readouterr().out
    assert "unlabelled, so there is no linear head" in printed
    assert "Not evaluated: The data set 'image_folder' has no labels" in printed
    result = tiny_runs.json_of(model_dir / "result.json")
    assert result["global_step"] == 2
    assert "has no labels" in result["eval/skipped"]
    assert not SCORES & result.keys()
    assert exported == [2]
    assert not [name for name in tiny_runs.weights(model_dir) if "linear_head" in name]
    assert not [k for k in tiny_runs.lines_of(model_dir / "metrics.jsonl")[0] if "supervised" in k]
    # --mode=eval, which only evaluates, is refused if nothing can be measured.
    arguments = ["run.py", "--mode=eval", f"--model_dir={model_dir}"]
    assert run.main(arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: The data set 'image_folder' has no labels")
    assert message.count("\n") == 1
    assert run.main([*arguments, "--evaluations=auto"]) == 0
    printed = capsys.readouterr().out
    assert "36 of the 36 images of 'train' are also in the training split 'train'" in printed
    assert "No accuracy was measured: The data set 'image_folder' has no labels" in printed
    result = tiny_runs.json_of(model_dir / "result.json")
    assert result["label_free/images"] == 36
    assert 0 <= result["label_free/view_retrieval"] <= 1
    assert not SCORES & result.keys()


@pytest.mark.exhaustive
def test_pretraining_on_an_unlabelled_split_of_labelled_data(
    photos, tmp_path, tmp_path_factory, capsys, no_export
):
    data = pathlib.Path(shutil.copytree(photos, tmp_path / "photos"))
    shutil.copytree(tiny_runs.unlabelled_photos(tmp_path_factory), data / "unlabeled")
    changes = {**tiny_runs.NO_COLOR, "train_split": "unlabeled", "train_steps": 1}
    assert tiny_runs.main("train_then_eval", tmp_path / "run", data, **changes) == 0
    printed = capsys.readouterr().out
    assert "Not evaluated: The split 'unlabeled' of 'image_folder' has no labels" in printed
    assert tiny_runs.json_of(tmp_path / "run" / "architecture.json")["class_names"] is None
    # With a split that has labels the encoder can be evaluated, though there is no online head.
    arguments = ["run.py", "--mode=eval", f"--model_dir={tmp_path}/run"]
    assert run.main(arguments) == 2
    assert "The split 'unlabeled' of 'image_folder' has no labels" in capsys.readouterr().err
    assert run.main([*arguments, "--train_split=train"]) == 0
    result = tiny_runs.json_of(tmp_path / "run" / "result.json")
    assert result["linear_eval/top_1_accuracy"] > 0.5
    assert "eval/label_top_1_accuracy" not in result


def test_pretraining_does_not_learn_from_labels(
    photos, tmp_path, pretrained, monkeypatch, no_export
):
    def with_other_labels(*args, **named):
        dataset = train_batches(*args, **named)
        return dataset.map(lambda batch: {**batch, "label": (batch["label"] + 1) % 3})

    train_batches = pipeline.train_batches
    monkeypatch.setattr(pipeline, "train_batches", with_other_labels)
    other = tmp_path / "other"
    assert tiny_runs.main("pretrain", other, photos, **tiny_runs.NO_COLOR) == 0
    a, b = tiny_runs.weights(pretrained), tiny_runs.weights(other)
    for name in ("encoder", "projection_head"):
        assert tiny_runs.equal(tiny_runs.part(a, name), tiny_runs.part(b, name))
    assert not tiny_runs.equal(tiny_runs.part(a, "linear_head"), tiny_runs.part(b, "linear_head"))


def test_a_frozen_encoder_does_not_change_while_the_head_is_trained(
    pretrained, photos, tmp_path, capsys, no_export
):
    tuned = tmp_path / "tuned"
    # The architecture is not given: it comes from the checkpoint.
    network = dict.fromkeys(("image_size", "resnet_depth", "proj_out_dim", "num_proj_layers"))
    changes = {**network, "checkpoint": pretrained, "fine_tune_after_block": 4}
    assert tiny_runs.main("finetune", tuned, photos, **changes) == 0
    printed = capsys.readouterr().out
    origin = f"{pretrained}/ckpt-4 (checkpoint of step 4)"
    assert f"Settings taken from {origin}: --resnet_depth=8, --image_size=8" in printed
    assert f"weights of {origin}" in printed
    for part in ("encoder", "projection head", "linear head"):
        assert re.search(rf"{part}: loaded (\d+) of \1 variables", printed), part
    before, after = tiny_runs.weights(pretrained), tiny_runs.weights(tuned)
    encoder = tiny_runs.part(before, "encoder")
    assert any("moving_variance" in name for name in encoder)
    # Names in a checkpoint follow the layers, frozen or not.
    assert tiny_runs.equal(encoder, tiny_runs.part(after, "encoder"))
    for name, value in tiny_runs.part(before, "linear_head").items():
        assert not np.array_equal(value, after[name]), name


@pytest.mark.exhaustive
def test_fine_tuning_ends_with_the_accuracy_of_its_classifier(
    pretrained, photos, tmp_path, capsys, no_export
):
    changes = {"checkpoint": pretrained, "fine_tune_after_block": 4}
    assert tiny_runs.main("finetune", tmp_path / "tuned", photos, **changes) == 0
    result = tiny_runs.json_of(tmp_path / "tuned" / "result.json")
    assert result["global_step"] == 4
    assert not [name for name in result if "baseline" in name]
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if "trained classifier" in line)
    accuracy = result["eval/label_top_1_accuracy"]
    assert re.findall(r"([\d.]+)%", row)[0] == f"{100 * accuracy:.1f}"
    # The long form only trains.
    changes |= {"train_mode": "finetune", **NO_TRAINING}
    assert tiny_runs.main("train", tmp_path / "tuned_2", photos, **changes) == 0
    assert not (tmp_path / "tuned_2" / "result.json").exists()


@pytest.mark.exhaustive
def test_fine_tuning_without_labels_to_evaluate_on_is_refused_with_the_remedy(
    pretrained, photos, tmp_path, tmp_path_factory, capsys, no_export
):
    data = pathlib.Path(shutil.copytree(photos, tmp_path / "photos"))
    shutil.copytree(tiny_runs.unlabelled_photos(tmp_path_factory), data / "unlabeled")
    changes = {"checkpoint": pretrained, **NO_TRAINING}
    assert tiny_runs.main("finetune", tmp_path / "a", data, eval_split="unlabeled", **changes) == 2
    message = capsys.readouterr().err
    assert "The split 'unlabeled' of 'image_folder' has no labels, which evaluation" in message
    assert "or --mode=train --train_mode=finetune." in message
    shutil.rmtree(data / "test")
    shutil.rmtree(data / "unlabeled")
    assert tiny_runs.main("finetune", tmp_path / "a", data, **changes) == 2
    message = capsys.readouterr().err
    assert "has no split to evaluate on" in message
    assert message.endswith("or --mode=train --train_mode=finetune.\n")
    changes["train_mode"] = "finetune"
    assert tiny_runs.main("train", tmp_path / "a", data, **changes) == 0


def test_freezing_up_to_group_1_trains_only_the_later_groups(
    pretrained, photos, tmp_path, no_export
):
    tuned = tmp_path / "tuned"
    changes = {"checkpoint": pretrained, "fine_tune_after_block": 1}
    assert tiny_runs.main("finetune", tuned, photos, **changes) == 0
    before = tiny_runs.part(tiny_runs.weights(pretrained), "encoder")
    after = tiny_runs.part(tiny_runs.weights(tuned), "encoder")
    frozen = {name for name in before if re.match(r"model/encoder/(stem|groups/0)", name)}
    assert 0 < len(frozen) < len(before)
    same = {name for name in before if np.array_equal(before[name], after[name])}
    assert same == frozen


@pytest.mark.exhaustive
def test_fine_tuning_on_other_classes_loads_all_but_the_linear_head(
    pretrained, photos, tmp_path, capsys, no_export, monkeypatch
):
    data = pathlib.Path(shutil.copytree(photos, tmp_path / "photos"))
    for split in ("train", "test"):
        (data / split / "red").rename(data / split / "rose")
    initial: list[np.ndarray] = []

    def fit(*arguments, **named):
        initial.extend(_head_of(arguments[3]))  # The checkpoints.
        return original_fit(*arguments, **named)

    original_fit = loop.fit
    monkeypatch.setattr(loop, "fit", fit)
    changes = {"checkpoint": f"{pretrained}/ckpt-2", "zero_init_logits_layer": True}
    assert tiny_runs.main("finetune", tmp_path / "tuned", data, **changes) == 0
    printed = capsys.readouterr().out
    assert f"weights of {pretrained}/ckpt-2" in printed
    assert "linear head: set to zero (--zero_init_logits_layer)" in printed
    assert len(initial) == 2
    assert not any(value.any() for value in initial)
    # Without that flag the head starts from initial weights, because the classes differ.
    changes = {"checkpoint": pretrained, **NO_TRAINING}
    assert tiny_runs.main("finetune", tmp_path / "tuned_2", data, **changes) == 0
    assert "linear head: skipped (the checkpoint's head has different classes)" in (
        capsys.readouterr().out
    )


def _head_of(checkpoints):
    return [v.numpy() for v in checkpoints._model.linear_head.variables]


@pytest.mark.exhaustive
@pytest.mark.parametrize("selector, layers", [(1, 1), (-1, 2)])
def test_fine_tuning_uses_the_selected_stage_of_the_projection_head(
    pretrained, photos, tmp_path, no_export, selector, layers
):
    tuned = tmp_path / "tuned"
    changes = {"checkpoint": pretrained, "ft_proj_selector": selector, "fine_tune_after_block": 4}
    assert tiny_runs.main("finetune", tuned, photos, **changes) == 0
    before = tiny_runs.part(tiny_runs.weights(pretrained), "projection_head")
    after = tiny_runs.part(tiny_runs.weights(tuned), "projection_head")
    kernels = [
        f"model/projection_head/denses/{i}/kernel/.ATTRIBUTES/VARIABLE_VALUE" for i in (0, 1)
    ]
    moved = [not np.array_equal(before[name], after[name]) for name in kernels]
    assert moved == [True, layers == 2]
    head = tiny_runs.part(tiny_runs.weights(tuned), "linear_head")
    assert {value.shape for value in head.values()} == {((64, 8)[layers - 1], 3), (3,)}


@pytest.mark.exhaustive
def test_fine_tuning_without_a_checkpoint_trains_from_scratch_and_reports_it(
    photos, tmp_path, capsys, no_export
):
    changes = {**NO_TRAINING, "train_mode": "finetune"}
    assert tiny_runs.main("train", tmp_path / "run", photos, **changes) == 0
    printed = capsys.readouterr().out
    assert (
        "from scratch: initial weights of seed 0 (--checkpoint names a pretraining run)" in printed
    )
