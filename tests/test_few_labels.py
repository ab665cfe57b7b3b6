"""Few labels: which ones are drawn, and that no other one is read."""

from __future__ import annotations

import csv
import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import observe
import observed_runs
import pytest
from sklearn import linear_model, preprocessing
import test_eval_split
import test_refusals
import tiny_runs

from simclr_tf import config, errors, storage
from simclr_tf.commands import train_draws
from simclr_tf.data import few_labels, labels, sources
from simclr_tf.evaluation import held_out, linear
from simclr_tf.runs import directory

LABEL_OF = {
    f"{label}/{i}.png": label for label, n in (("a", 40), ("b", 200), ("c", 7)) for i in range(n)
}


def names_of(label_of, **settings):
    return set(few_labels.draw(label_of, **{"seed": 0, **settings}).label_of)


def sizes(names):
    return [sum(name.startswith(label) for name in names) for label in "abc"]


def test_a_number_is_drawn_of_each_class():
    assert sizes(names_of(LABEL_OF, per_class=5)) == [5, 5, 5]


def test_a_fraction_of_each_class_is_rounded_and_at_least_one():
    drawn = few_labels.draw(LABEL_OF, fraction=0.06, seed=0)
    assert sizes(drawn.label_of) == [2, 12, 1]
    assert drawn.rounded_up == 1
    assert drawn.summary() == "15 images, 1 to 12 of each of 3 classes"


def test_a_smaller_draw_is_contained_in_a_larger_one():
    assert names_of(LABEL_OF, per_class=2) < names_of(LABEL_OF, per_class=6)
    assert names_of(LABEL_OF, fraction=0.01) < names_of(LABEL_OF, fraction=0.1)


def test_the_draw_of_a_class_depends_on_nothing_else():
    alone = {name: label for name, label in LABEL_OF.items() if label == "b"}
    shuffled = dict(np.random.default_rng(0).permutation(list(LABEL_OF.items())).tolist())
    of_all = names_of(LABEL_OF, per_class=5)
    assert names_of(shuffled, per_class=5) == of_all
    assert names_of(alone, per_class=5) == {name for name in of_all if name.startswith("b")}


def test_draws_and_seeds_differ_and_all_images_are_equally_likely():
    drawn = [names_of(LABEL_OF, per_class=5, number=number) for number in range(400)]
    assert len(set(map(frozenset, drawn))) == 400
    assert drawn[0] != names_of(LABEL_OF, per_class=5, seed=1)
    counts = np.array([sum(f"a/{i}.png" in one for one in drawn) for i in range(40)])
    # Of 400 draws with probability 1/8: 50, with a standard deviation of 6.6.
    assert np.all(np.abs(counts - 50) < 4 * 6.6)


def test_a_class_with_too_few_images_is_named():
    with pytest.raises(errors.ArgumentError) as raised:
        few_labels.draw(LABEL_OF, per_class=8, seed=0)
    assert "the class 'c' has, which are 7 (1 of 3 classes" in str(raised.value)


def test_the_labels_of_a_pretraining_run_are_hidden_and_its_images_stay(photos):
    data = test_eval_split.open_data(photos, labels_per_class=3, eval_split="test")
    assert data.source.num_examples("train") == 36
    known = labels.known(data.source, "train")
    names = np.array(data.source.example_names("train"))
    assert np.bincount(known[known >= 0]).tolist() == [3, 3, 3]
    assert set(names[known >= 0]) == set(data.draws[0].label_of)
    streamed = {
        example["name"].decode(): int(example["label"])
        for example in data.source.examples("train").as_numpy_iterator()
    }
    assert streamed == dict(zip(names, known, strict=True))
    assert min(labels.known(data.source, "test")) >= 0


def test_a_run_that_learns_from_labels_has_no_other_images(photos):
    settings = {"train_mode": "finetune", "label_fraction": 0.25, "eval_split": "test"}
    data = test_eval_split.open_data(photos, **settings)
    assert data.source.num_examples("train") == 9
    streamed = data.source.examples("train", order_seed=np.array([1, 2]))
    names = [example["name"].decode() for example in streamed.as_numpy_iterator()]
    assert sorted(names) == sorted(data.draws[0].label_of)
    assert data.source.num_examples("test") == 18


def test_a_stream_of_records_is_limited_like_a_folder():
    source = sources.open_source("digits", data_dir=None, seed=0)
    split = "train[:300]"
    label_of = few_labels.examples_of(source, split)
    drawn = few_labels.draw(label_of, per_class=2, seed=0).label_of
    expected = [
        (example["name"].decode(), int(example["label"]))
        for example in source.examples(split).as_numpy_iterator()
    ]

    def read(limited):
        examples = limited.examples(split).as_numpy_iterator()
        return [(example["name"].decode(), int(example["label"])) for example in examples]

    assert read(few_labels.hide_labels(source, split, drawn)) == [
        (name, label if name in drawn else -1) for name, label in expected
    ]
    assert read(few_labels.exclude_others(source, split, drawn)) == [
        (name, label) for name, label in expected if name in drawn
    ]


def test_an_evaluated_training_split_is_refused(photos):
    with pytest.raises(errors.UserError, match="which is also evaluated; set --eval_split"):
        test_eval_split.open_data(
            photos, mode="eval", labels_per_class=3, eval_split="train", train_split="train"
        )


def test_labels_that_do_not_exist_are_not_drawn(tmp_path_factory):
    folder = tiny_runs.unlabelled_photos(tmp_path_factory)
    with pytest.raises(errors.UserError, match="--labels_per_class=3 draws from the labels"):
        test_eval_split.open_data(folder, given=False, labels_per_class=3)


@pytest.mark.parametrize(
    ("settings", "phrase"),
    [
        ({"labels_per_class": 1, "label_fraction": 0.1}, "both choose labels; use one"),
        ({"label_draw": 1}, "--label_draw=1 draws labels, and all are used"),
        ({"label_draws": 2}, "--label_draws=2 draws labels, and all are used"),
        ({"label_draws": 2, "label_fraction": 0.1}, "--mode=train has none"),
        (
            {"label_draws": 2, "label_fraction": 0.1, "mode": "eval", "objective": "supcon"},
            "of a draw",
        ),
        ({"label_fraction": 1.5}, "--label_fraction must be 0 or between 1e-06 and 1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, phrase):
    with pytest.raises(errors.UserError) as raised:
        config.validate(config.Config(model_dir="/run", dataset="cifar10", **settings))
    assert phrase in str(raised.value)


@pytest.mark.parametrize(("per_class", "expected"), [(1, 0), (2, 2), (7, 5), (400, 1)])
def test_few_images_are_held_out_once_each_and_every_class_is_fitted(per_class, expected):
    of_class = np.repeat(np.arange(5), per_class)
    splits = held_out.of_few(of_class, seed=0)
    assert len(splits) == expected
    for split in splits:
        assert set(of_class[split.fit]) == set(range(5))
        assert sorted([*split.fit, *split.held]) == list(range(len(of_class)))
        counts = np.bincount(of_class[split.held], minlength=5)
        assert counts.max() - counts.min() == 0
    if per_class < 400 and splits:
        held = np.concatenate([split.held for split in splits])
        assert sorted(held) == list(range(len(of_class)))


def test_the_only_image_of_a_class_is_never_held_out():
    splits = held_out.of_few(np.array([0, 0, 0, 1]), seed=0)
    assert len(splits) == 3
    assert all(3 in split.fit for split in splits)


def test_the_strength_of_few_images_is_that_of_the_best_accuracy_over_all_splits():
    rng = np.random.default_rng(0)
    of_class = np.repeat([0, 1], 12)
    # The classes differ by a small difference of two large features, which needs large weights.
    base = rng.normal(size=24)
    features = np.stack([base, base + 0.1 * of_class + 0.02 * rng.normal(size=24)], 1)
    splits = held_out.of_few(of_class, seed=0)
    features = features.astype(np.float32)
    found = linear.fit(features, of_class, num_classes=2, seed=0, splits=splits).strength

    def accuracy(strength):
        scaled = preprocessing.StandardScaler().fit_transform(features)
        hits = [
            linear_model.LogisticRegression(C=strength, max_iter=1000)
            .fit(scaled[s.fit], of_class[s.fit])
            .predict(scaled[s.held])
            == of_class[s.held]
            for s in splits
        ]
        return np.mean(np.concatenate(hits))

    accuracies = [accuracy(strength) for strength in linear.STRENGTHS[::4]]
    assert accuracy(found) >= max(accuracies)
    assert max(accuracies) > min(accuracies) + 0.1  # It matters here.


def test_without_any_held_out_image_the_strength_is_1():
    features = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    fit = linear.fit(features, np.arange(4), num_classes=4, seed=0, splits=[])
    assert (fit.strength, fit.temperature) == (1, 1)


# --- Runs of the program. ---


def labelled_by(path: pathlib.Path, label_of: dict[str, str]) -> pathlib.Path:
    """Writes a file of labels, with the splits that the names begin with."""
    lines = [f"{name},{label},{name.split('/')[0]}" for name, label in label_of.items()]
    path.write_text("\n".join(["file,label,split", *lines]) + "\n")
    return path


@pytest.fixture
def swapped(photos, tmp_path, monkeypatch):
    """Two files of labels that differ in all labels that are not drawn, and the draw."""
    paths = [str(path.relative_to(photos)) for path in sorted(photos.glob("*/*/*.png"))]
    right = {path: path.split("/")[1] for path in paths}
    of_train = {path: label for path, label in right.items() if path.startswith("train")}
    drawn = names_of(of_train, per_class=4)
    others = [path for path in of_train if path not in drawn]
    next_of = dict(zip(tiny_runs.CLASSES, [*tiny_runs.CLASSES[1:], tiny_runs.CLASSES[0]]))
    wrong = {**right, **{path: next_of[right[path]] for path in others}}
    # Labels decide what is drawn, so the draw must be that of the right ones.
    monkeypatch.setattr(few_labels, "examples_of", lambda *_: dict(of_train))
    files = [labelled_by(tmp_path / f"{i}.csv", one) for i, one in enumerate((right, wrong))]
    return files, drawn


def list_of(path: pathlib.Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def result_of(model_dir: pathlib.Path) -> dict[str, Any]:
    return tiny_runs.json_of(model_dir / "result.json")


@pytest.mark.usefixtures("no_export")
def test_an_evaluation_reads_no_other_label(pretrained, photos, swapped):
    files, drawn = swapped
    results = []
    for file in files:
        flags = {"labels": file, "labels_per_class": 4, "evaluations": "knn,calibration"}
        assert tiny_runs.main("eval", pretrained, photos, **flags) == 0
        results.append(result_of(pretrained))
    used = list_of(pretrained / "evaluation" / "4" / "labels_used.csv")
    assert {row["name"] for row in used} == drawn
    assert results[0]["few_labels/images"] == 12
    for result in results:
        for name in ("eval/seconds", "eval/measured_on"):
            del result[name]
    assert results[0] == results[1]


@pytest.mark.exhaustive
@pytest.mark.usefixtures("no_export")
def test_training_reads_no_other_label_and_lists_the_images(photos, swapped, tmp_path):
    files, drawn = swapped
    flags = {
        "train_mode": "finetune",
        "labels_per_class": 4,
        "train_steps": 2,
        "augmentation": "flip",
    }
    weights, lists = [], []
    for file in files:
        model_dir = tmp_path / f"run_{file.stem}"
        assert tiny_runs.main("train", model_dir, photos, labels=file, **flags) == 0
        weights.append(tiny_runs.weights(model_dir))
        lists.append(list_of(model_dir / "labels_used.csv"))
    assert tiny_runs.equal(*weights)
    assert lists[0] == lists[1]
    assert {row["name"] for row in lists[0]} == drawn


def test_the_draw_is_the_same_on_two_replicas_and_after_resuming(tmp_path_factory):
    runner = observed_runs.Runner(tmp_path_factory)
    flags = {"train_mode": "finetune", "labels_per_class": 3}
    first = runner.run(**flags)
    used = list_of(first.folder / "labels_used.csv")
    more = {"model_dir": str(first.folder), "train_steps": 6, "resume_with_changes": True}
    resumed = runner.run(**flags, **more, num_virtual_cpus=2)
    assert resumed.strategy.num_replicas_in_sync == 2
    assert "Resuming at step 4" in resumed.printed
    assert observe.left_out(resumed) == observe.left_out(first)
    assert list_of(first.folder / "labels_used.csv") == used and len(used) == 9


@pytest.mark.exhaustive
@pytest.mark.usefixtures("no_export")
def test_the_linear_evaluation_is_repeated_for_each_draw(pretrained, photos):
    flags = {"labels_per_class": 3}
    assert tiny_runs.main("eval", pretrained, photos, label_draws=3, **flags) == 0
    repeated = result_of(pretrained)
    name = "linear_eval/top_1_accuracy"
    values = repeated[f"few_labels/{name}"]
    assert repeated[f"few_labels/{name}_mean"] == pytest.approx(np.mean(values))
    assert repeated[f"few_labels/{name}_std"] == pytest.approx(np.std(values) * np.sqrt(3 / 2))
    draws = [row["draw"] for row in list_of(pretrained / "evaluation" / "4" / "labels_used.csv")]
    assert draws == 9 * ["0"] + 9 * ["1"] + 9 * ["2"]
    assert repeated[name] == values[0]
    assert tiny_runs.main("eval", pretrained, photos, label_draw=2, **flags) == 0
    assert result_of(pretrained)[name] == values[2]


def test_each_draw_is_a_run_that_is_not_repeated_once_it_is_finished(tmp_path):
    settings = config.Config(
        mode="train_then_eval",
        train_mode="finetune",
        model_dir=str(tmp_path),
        labels_per_class=2,
        label_draws=3,
    )
    accuracies, made = [0.5, 0.75, 0.25], []

    def train_and_evaluate(of_draw):
        made.append(of_draw.label_draw)
        folder = pathlib.Path(of_draw.model_dir)
        folder.mkdir(exist_ok=True)
        directory.write_config(str(folder), of_draw)
        result = {"eval/label_top_1_accuracy": accuracies[of_draw.label_draw], "train/seconds": 1.0}
        storage.write_json(str(folder / "result.json"), result)
        if len(made) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_draws.train_draws(settings, train_and_evaluate)
    train_draws.train_draws(settings, train_and_evaluate)
    assert made == [0, 1, 1, 2]  # The second one was interrupted.
    train_draws.train_draws(settings, train_and_evaluate)
    assert made == [0, 1, 1, 2]
    by_hand = directory.read_config(str(tmp_path / "draw-1"))
    assert (by_hand.label_draw, by_hand.label_draws) == (1, 1)
    summary = json.loads((tmp_path / "result.json").read_text())
    assert summary["mean"] == {"eval/label_top_1_accuracy": pytest.approx(0.5)}
    assert summary["std"] == {"eval/label_top_1_accuracy": pytest.approx(0.25)}
    train_draws.train_draws(dataclasses.replace(settings, learning_rate=7.0), train_and_evaluate)
    assert made[4:] == [0, 1, 2]


def test_draws_are_not_trained_inside_a_run(pretrained, photos, capsys, tmp_path):
    flags = {"train_mode": "finetune", "labels_per_class": 2, "label_draws": 2}
    message = test_refusals.run_error(
        capsys, photos, tmp_path, "train_then_eval", model_dir=pretrained, **flags
    )
    assert "contains a run, and --label_draws=2 makes a folder" in message
