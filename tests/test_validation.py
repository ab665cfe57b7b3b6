"""Evaluation during training: its images, its numbers, the best checkpoint, and the training."""

from __future__ import annotations

import collections
import pathlib
import shutil
import types
from typing import Any

import numpy as np
import pytest
import replicas as replicas_lib
import tensorflow as tf
import tiny_runs

from simclr_tf import config, errors
from simclr_tf.commands import train, validation
from simclr_tf.data import membership, subsets
from simclr_tf.evaluation import label_free
from simclr_tf.evaluation import validation as measuring
from simclr_tf.report import overview
from simclr_tf.runs import best, opening, validation_images
from simclr_tf.runs import weights as weights_lib
from simclr_tf.serving import export
from simclr_tf.training import averages, loop, schedules

LARGEST_K = "validation/knn/20/top_1_accuracy"
# Of 36 images 6 are left out, so an epoch has 4 steps.
SETTINGS = {
    **tiny_runs.NO_COLOR,
    "eval_epochs": 1,
    "validation_examples": 6,
    "train_steps": 8,
    "checkpoint_steps": 3,
    "keep_checkpoint_max": 1,
    "train_summary_steps": 8,
}


def pretrain(model_dir, data_dir, **changes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "export", lambda *_, **__: "")
        patch.setattr(train, "_show_views", lambda *_: None)
        return tiny_runs.main("train", model_dir, data_dir, **{**SETTINGS, **changes})


def raised(*offsets):
    """Returns a function that measures, and adds one offset after the other to the metric."""
    measure, rest = measuring.measure, iter(offsets)

    def measure_and_raise(inputs):
        numbers = measure(inputs)
        return {**numbers, LARGEST_K: numbers[LARGEST_K] + next(rest)}

    return measure_and_raise


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that was evaluated at steps 4 and 8; step 4 is made the best."""
    model_dir = tmp_path_factory.mktemp("validated") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "measure", raised(1, 0))
        assert pretrain(model_dir, tiny_runs.photos(tmp_path_factory)) == 0
    return model_dir


def of_step(model_dir, step):
    """Returns the validation numbers of a step; there must be one line of them."""
    lines = tiny_runs.lines_of(model_dir / "metrics.jsonl")
    (line,) = [x for x in lines if x["step"] == step and any("validation/" in key for key in x)]
    return {name: value for name, value in line.items() if name != "step"}


# The images.


def test_every_prefix_of_the_order_has_its_fraction_of_every_class():
    rng = np.random.default_rng(0)
    labels = rng.choice(4, 300, p=[0.6, 0.3, 0.09, 0.01]) - 1
    names = [f"{index}.png" for index in range(300)]
    order = subsets.stratified_order(names, labels, seed=0)
    assert sorted(order) == list(range(300))
    for k in (1, 10, 30, 150, 299):
        for label in np.unique(labels):
            exact = k * np.mean(labels == label)
            assert abs(np.sum(labels[order[:k]] == label) - exact) <= 1.5


def test_the_order_is_a_function_of_the_seed_and_the_images():
    labels, names = np.arange(60) % 3, [f"{index}.png" for index in range(60)]
    shuffled = np.random.default_rng(1).permutation(60)
    drawn = [names[i] for i in subsets.stratified_order(names, labels, seed=0)]
    again = subsets.stratified_order([names[i] for i in shuffled], labels[shuffled], seed=0)
    assert [names[shuffled[i]] for i in again] == drawn
    assert [names[i] for i in subsets.stratified_order(names, labels, seed=1)] != drawn


@pytest.mark.parametrize(
    ("images", "given", "expected"), [(36, 0, 3), (12, 0, 2), (50_000, 0, 2000), (36, 18, 18)]
)
def test_a_tenth_is_left_out_but_at_most_2000(images, given, expected):
    settings = config.Config(eval_epochs=1, validation_examples=given)
    assert validation_images.count(settings, images) == expected
    assert validation_images.count(config.Config(), images) == 0


def test_leaving_out_more_than_half_is_refused():
    settings = config.Config(eval_epochs=1, validation_examples=19)
    with pytest.raises(errors.UserError, match=r"leaves 19 of the 36 images .* more than half"):
        validation_images.count(settings, 36)


def opened(data_dir, model_dir, count, **changes):
    """Returns a run on replicas and its divided training images."""
    settings = config.Config(
        model_dir=str(model_dir),
        dataset="image_folder",
        data_dir=str(data_dir),
        **{**tiny_runs.SMALL, **SETTINGS, **changes},
    )
    run = opening.open_run(settings, replicas_lib.strategy(count), None, eval_split_given=False)
    return run, validation_images.draw(settings, run.data)


def test_the_validation_images_are_not_trained_on_and_all_are_read(photos, tmp_path):
    run, drawn = opened(photos, tmp_path, 1)
    source = run.data.source

    def names(source):
        return {one["name"] for one in source.examples("train").as_numpy_iterator()}

    validation_only = names(drawn.validation_only(source))
    assert len(validation_only) == drawn.count == 6
    classes = collections.Counter(name.decode().split("/")[1] for name in validation_only)
    assert classes == {"blue": 2, "green": 2, "red": 2}
    assert names(drawn.to_train(source)) == names(source) - validation_only
    assert drawn.to_train(source).num_examples("train") == 30
    assert names(drawn.to_evaluate(source)) == names(source)


def test_images_of_a_stream_are_left_out_by_their_names():
    names = [f"a[{index}]" for index in range(9)]
    examples = tf.data.Dataset.from_tensor_slices({"name": names, "label": tf.range(9) % 3})
    is_left_out = membership.is_among(["a[3]", "a[0]", "a[8]", "b[1]"])
    kept = examples.filter(lambda example: ~is_left_out(example["name"]))
    source: Any = types.SimpleNamespace(random_access=lambda _: None, examples=lambda _: kept)
    found, labels = subsets.read_names_and_labels(source, "train")
    assert found == [names[index] for index in (1, 2, 4, 5, 6, 7)]
    assert labels.tolist() == [1, 2, 1, 2, 0, 1]


# The numbers.


def inputs(labels, logits=None):
    rng = np.random.default_rng(0)
    bank = np.repeat(np.eye(3), 2, 0)  # Two of each of three classes.
    return measuring.Inputs(
        features=np.eye(3)[labels] + 0.1,
        labels=np.array(labels),
        logits=logits,
        views=label_free.Views(rng.normal(size=(4, 3, 5)), rng.normal(size=(4, 3, 2))),
        bank=bank,
        bank_labels=np.array([0, 0, 1, 1, 2, 2]),
        num_classes=3,
    )


def test_accuracies_are_of_the_labelled_images():
    given = inputs([0, 1, 2, 1], np.eye(3)[[0, 1, 0, 0]])
    given.labels[3] = -1
    numbers = measuring.measure(given)
    assert numbers["validation/label_top_1_accuracy"] == pytest.approx(2 / 3)
    assert numbers["validation/knn/1/top_1_accuracy"] == 1
    assert "validation/knn/20/top_1_accuracy" not in numbers  # There are only six neighbours.


def test_cosines_are_those_of_every_pair_of_a_first_and_a_second_view():
    given = inputs([0, 1, 2, 1])
    unit = [[view / np.linalg.norm(view) for view in image] for image in given.views.features]
    same = [unit[i][0] @ unit[i][1] for i in range(4)]
    others = [unit[i][0] @ unit[j][1] for i in range(4) for j in range(4) if i != j]
    numbers = measuring.measure(given)
    assert numbers["validation/geometry/positive_cosine"] == pytest.approx(np.mean(same))
    assert numbers["validation/geometry/negative_cosine"] == pytest.approx(np.mean(others))
    squared = [np.sum((unit[i][0] - unit[i][1]) ** 2) for i in range(4)]
    assert numbers["validation/geometry/alignment"] == pytest.approx(np.mean(squared))


@pytest.mark.parametrize(
    ("names", "classifies", "expected"),
    [
        ([measuring.HEAD, LARGEST_K, measuring.RETRIEVAL], True, measuring.HEAD),
        ([measuring.HEAD, LARGEST_K, measuring.RETRIEVAL], False, LARGEST_K),
        (["validation/knn/1/top_1_accuracy", LARGEST_K, measuring.RETRIEVAL], False, LARGEST_K),
        ([measuring.RETRIEVAL], True, measuring.RETRIEVAL),
    ],
)
def test_the_metric_depends_on_what_is_trained_and_on_labels(names, classifies, expected):
    assert measuring.metric_of(dict.fromkeys(names, 0.5), classifies=classifies) == expected


@pytest.mark.exhaustive
def test_two_replicas_have_the_numbers_of_one(photos, tmp_path):
    found = []
    for count in (1, 2):
        run, drawn = opened(photos, tmp_path, count, eval_batch_size=20)
        evaluated = validation.Validation(run, drawn, run.new_model())._extract()
        assert (len(evaluated.features), len(evaluated.bank)) == (6, 30)
        found.append(measuring.measure(evaluated))
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        assert found[1][name] == pytest.approx(value, rel=1e-3, abs=1e-5), name


def test_without_labels_retrieval_among_ten_views_chooses(tmp_path_factory, tmp_path):
    folder = tiny_runs.unlabelled_photos(tmp_path_factory)
    run, drawn = opened(folder, tmp_path, 1)
    written: dict[str, float] = {}
    log: Any = types.SimpleNamespace(write=lambda step, numbers, replacing: written.update(numbers))
    (tmp_path / "ckpt-4.index").touch()
    evaluated = validation.Validation(run, drawn, run.new_model())
    assert evaluated._extract().views.features.shape[:2] == (6, 10)
    evaluated.evaluate(4, log)
    found = best.read(str(tmp_path))
    assert found is not None
    assert (found.metric, found.step) == ("validation/label_free/view_retrieval", 4)
    assert found.value == written["validation/label_free/view_retrieval"]
    assert not any("accuracy" in name for name in written)


# best.json.


def add(model_dir, step, value, *, complete=(1, 2, 3), metric="m", images="a"):
    return best.add(str(model_dir), complete, metric=metric, images=images, step=step, value=value)


def test_of_equal_checkpoints_the_earlier_is_the_best(tmp_path):
    for step, value in ((1, 0.5), (2, 0.7), (3, 0.7)):
        found = add(tmp_path, step, value)
    assert (found.step, found.value) == (2, 0.7)
    assert best.read(str(tmp_path)) == found
    assert found.candidates == {1: 0.5, 2: 0.7, 3: 0.7}


@pytest.mark.parametrize("values", [(float("nan"), 0.1), (0.1, float("nan"))])
def test_a_value_that_is_not_a_number_is_not_the_best(tmp_path, values):
    for step, value in enumerate(values, 1):
        add(tmp_path, step, value)
    found = best.read(str(tmp_path))
    assert found is not None
    assert found.value == 0.1


@pytest.mark.parametrize("change", [{"metric": "other"}, {"images": "b"}])
def test_values_that_were_measured_differently_are_not_compared(tmp_path, change):
    add(tmp_path, 1, 0.9)
    assert add(tmp_path, 2, 0.1, **change).candidates == {2: 0.1}


@pytest.mark.parametrize(
    ("resumed", "complete", "expected"),
    [(3, (1, 2, 3), 2), (1, (1,), 1), (2, (1,), 1), (0, (), None), (3, (3,), 3)],
)
def test_a_resumed_run_forgets_checkpoints_that_it_does_not_have(
    tmp_path, resumed, complete, expected
):
    for step, value in ((1, 0.5), (2, 0.9), (3, 0.7)):
        add(tmp_path, step, value)
    best.forget_after(str(tmp_path), resumed, complete)
    found = best.read(str(tmp_path))
    assert (found and found.step) == expected
    assert found is None or max(found.candidates) <= resumed


def test_a_damaged_file_is_reported(tmp_path):
    (tmp_path / "best.json").write_text('{"step": 1}')
    with pytest.raises(errors.UserError, match="does not list checkpoints"):
        best.read(str(tmp_path))


# The loop.


@pytest.mark.parametrize(("stop_at", "expected"), [(None, [4, 8, 9]), (4, [])])
def test_a_checkpoint_is_complete_before_it_is_evaluated(monkeypatch, stop_at, expected):
    monkeypatch.setattr(averages.Averages, "summary", lambda self: "")
    events: list[tuple[str, int]] = []
    step = _Variable(0)
    state: Any = types.SimpleNamespace(
        step=step,
        seconds=_Variable(0),
        has_finite_weights=lambda: True,
        save=lambda: events.append(("save", int(step))),
        remove_old=lambda: None,
    )
    log: Any = types.SimpleNamespace(write=lambda *_: None)
    plan = schedules.Plan(100, 10, 9, 0, 100, 100, 0.1, validation_steps=4)
    loop.fit(
        lambda count: averages.Sums(count, 0.0, True, {}),
        plan,
        schedules.WarmupCosine(0.1, 0, 9),
        state,
        log,
        should_stop=lambda: int(step) == stop_at,
        validate=lambda step: events.append(("validate", step)),
    )
    assert [step for event, step in events if event == "validate"] == expected
    for step in expected:
        assert events.index(("save", step)) == events.index(("validate", step)) - 1


class _Variable:
    def __init__(self, value):
        self.value = value

    def __int__(self):
        return self.value

    def assign(self, value):
        self.value = value

    def assign_add(self, value):
        self.value += value


# The whole program.


def test_the_best_checkpoint_is_kept_beside_the_last_one(trained):
    stored = tiny_runs.json_of(trained / "best.json")
    values = {step: of_step(trained, step)[LARGEST_K] for step in (4, 8)}
    assert values[4] > values[8]
    assert (stored["step"], stored["metric"]) == (4, LARGEST_K)
    assert stored["value"] == pytest.approx(values[4])
    assert stored["candidates"] == [
        {"step": step, "value": pytest.approx(value, rel=1e-6)} for step, value in values.items()
    ]
    assert {path.stem for path in trained.glob("ckpt-*.index")} == {"ckpt-4", "ckpt-8"}


def test_its_numbers_are_among_the_metrics(trained):
    numbers = of_step(trained, 8)
    assert {name.split("/")[1] for name in numbers} == {
        *("knn", "label_free", "geometry", "label_top_1_accuracy")
    }


def test_best_names_the_checkpoint_for_the_program(trained):
    opened = weights_lib.open_weights(f"{trained}/best")
    assert opened.origin == f"{trained}/ckpt-4"
    assert opened.folder == str(trained)
    assert (opened.step, opened.class_names) == (4, tiny_runs.CLASSES)


def test_the_table_of_an_evaluation_says_which_step_was_the_best(trained, capsys):
    values = [f"{of_step(trained, step)[LARGEST_K]:.4g}" for step in (4, 8)]
    overview._say_best(str(trained), 8)
    assert capsys.readouterr().out == (
        f"The best step during training was 4: {LARGEST_K} was {values[0]}, and {values[1]} at "
        f"step 8. --checkpoint={trained}/best reads it.\n"
    )
    overview._say_best(str(trained), 4)
    assert capsys.readouterr().out == ""


def test_a_run_without_evaluation_has_no_best_checkpoint(pretrained):
    with pytest.raises(errors.UserError, match="best does not exist"):
        weights_lib.open_weights(f"{pretrained}/best")


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """The same run, interrupted within both evaluations, with other labels to evaluate on."""
    root = tmp_path_factory.mktemp("interrupted")
    photos = pathlib.Path(shutil.copytree(tiny_runs.photos(tmp_path_factory), root / "photos"))
    for index in range(3):  # Half of the images of two classes.
        red, blue = (photos / "test" / name / f"{index}.png" for name in ("red", "blue"))
        content = red.read_bytes()
        red.write_bytes(blue.read_bytes())
        blue.write_bytes(content)
    real_add, evaluate = best.add, validation.Validation.evaluate

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    def interrupt_at_the_end(self, step, log):
        interrupt() if step == 8 else evaluate(self, step, log)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "measure", raised(1, 1, 0))
        patch.setattr(best, "add", interrupt)  # The metrics are written then, and best.json is not.
        assert pretrain(root / "run", photos) == 130
        patch.setattr(best, "add", real_add)
        patch.setattr(validation.Validation, "evaluate", interrupt_at_the_end)
        assert pretrain(root / "run", photos) == 130
        patch.setattr(validation.Validation, "evaluate", evaluate)
        assert pretrain(root / "run", photos) == 0
    return root / "run"


@pytest.mark.exhaustive
def test_an_interrupted_evaluation_is_repeated(interrupted, trained):
    for step in (4, 8):
        assert of_step(interrupted, step) == of_step(trained, step)
    names = {path.stem for path in interrupted.glob("ckpt-*.index")}
    assert names == {"ckpt-4", "ckpt-8"}
    assert tiny_runs.equal(tiny_runs.weights(interrupted, 8), tiny_runs.weights(trained, 8))


@pytest.mark.exhaustive
def test_labels_of_the_evaluation_split_do_not_choose_the_best(interrupted, trained):
    assert (interrupted / "best.json").read_text() == (trained / "best.json").read_text()


def test_evaluation_changes_no_bit_of_the_training(tmp_path, trained, photos, monkeypatch):
    monkeypatch.setattr(validation.Validation, "evaluate", lambda *_: None)
    assert pretrain(tmp_path / "run", photos) == 0
    assert tiny_runs.equal(tiny_runs.weights(tmp_path / "run", 8), tiny_runs.weights(trained, 8))
