"""Comparing the predictions of runs for the same images."""

import dataclasses
import shutil

import numpy as np
import pytest
from scipy import stats
import tensorflow as tf
import tiny_runs

import run
from simclr_tf.commands import compare as command
from simclr_tf.evaluation import comparison
from simclr_tf.runs import directory, predictions


def test_mcnemars_test_of_a_case_worked_by_hand():
    # Of 20 images, 12 are right in both, 1 only in the first and 6 only in the second.
    first = np.array([1] * 12 + [1] + [0] * 6 + [0], bool)
    second = np.array([1] * 12 + [0] + [1] * 6 + [0], bool)
    found = comparison.compare(first, second, seed=0)
    assert (found.only_first, found.only_second) == (1, 6)
    assert found.difference.value == pytest.approx(5 / 20)
    # 2 * (C(7, 0) + C(7, 1)) / 2**7, both tails of 7 fair coins.
    assert found.p == pytest.approx(2 * 8 / 128)
    swapped = comparison.compare(second, first, seed=0)
    assert swapped.p == found.p and swapped.difference.value == -found.difference.value


def test_the_interval_of_a_difference_has_the_width_of_the_normal_approximation():
    rng = np.random.default_rng(0)
    first, second = rng.random(5000) < 0.7, rng.random(5000) < 0.72
    found = comparison.compare(first, second, seed=0)
    deviation = np.std(second.astype(float) - first) / np.sqrt(5000)
    low, high = stats.norm.interval(0.95, found.difference.value, deviation)
    assert found.difference.low == pytest.approx(low, abs=2e-3)
    assert found.difference.high == pytest.approx(high, abs=2e-3)


def test_equal_predictions_do_not_differ():
    found = comparison.compare(np.ones(5, bool), np.ones(5, bool), seed=0)
    assert found.p == 1 and found.difference == (0, 0, 0)


def test_holms_correction_of_a_case_worked_by_hand():
    assert comparison.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert comparison.holm([0.9, 0.8]) == [1, 1]


@pytest.fixture
def runs(tmp_path, tmp_path_factory):
    """Two runs that differ in the prediction for four of the 18 images, three times for worse."""
    pretrained = tiny_runs.pretrained(tmp_path_factory)
    photos = tiny_runs.photos(tmp_path_factory)
    names = sorted(f"test/{path.parent.name}/{path.name}" for path in photos.glob("test/*/*.png"))
    labels = np.array([tiny_runs.CLASSES.index(name.split("/")[1]) for name in names])
    scores = np.eye(3)[labels]
    worse = np.roll(scores, 1, axis=1)
    folders = []
    for name, wrong in (("one", [0]), ("two", [1, 2, 3])):
        folder = shutil.copytree(pretrained, tmp_path / name)
        changed = scores.copy()
        changed[wrong] = worse[wrong]
        order = slice(None, None, -1 if name == "two" else 1)  # The order does not matter.
        found = predictions.of_scores(
            4, names[order], labels[order], changed[order], tiny_runs.CLASSES
        )
        predictions.write(str(folder), found)
        folders.append(folder)
    return folders


def test_runs_are_compared_by_the_program(runs, tmp_path, capsys):
    output = tmp_path / "output"
    arguments = ["run.py", "--mode=compare", f"--runs={runs[0]}, {runs[1]}"]
    assert run.main([*arguments, f"--model_dir={output}"]) == 0
    result = tiny_runs.json_of(output / command.RESULT)
    (against,) = result["against_first"]
    assert against["difference"] == pytest.approx(-2 / 18)
    assert (against["only_first"], against["only_this"]) == (3, 1)
    assert against["p"] == against["p_adjusted"] == pytest.approx(2 * 5 / 16)
    assert result["runs"][0]["accuracy"] == pytest.approx(17 / 18)
    assert [one["global_step"] for one in result["runs"]] == [4, 4]
    sheet = tf.io.decode_png((output / command.PICTURE).read_bytes()).numpy()
    # Three images in the first row, one in the second: blue ones are those of the class "blue".
    height, width, _ = sheet.shape
    assert height == 6 + 2 * (18 + 96 + 6)
    assert width > 6 + 3 * (96 + 6)  # The captions with the paths of the runs need more.
    printed = capsys.readouterr().out
    assert "-11.1 (" in printed and "1 : 3" in printed
    assert "digits" not in printed


def test_runs_on_other_images_are_refused(runs, capsys):
    found = predictions.read(str(runs[1]))
    fewer = predictions.Predictions(
        4, found.names[2:], found.labels[2:], found.predicted[2:], found.probability[2:]
    )
    predictions.write(str(runs[1]), fewer)
    assert run.main(["run.py", "--mode=compare", f"--runs={runs[0]},{runs[1]}"]) == 2
    assert "2 are only in one of them" in capsys.readouterr().err


def test_runs_with_other_labels_are_refused(runs, capsys):
    found = predictions.read(str(runs[1]))
    labels = found.labels.copy()
    labels[0] = "mauve"
    changed = predictions.Predictions(4, found.names, labels, found.predicted, found.probability)
    predictions.write(str(runs[1]), changed)
    assert run.main(["run.py", "--mode=compare", f"--runs={runs[0]},{runs[1]}"]) == 2
    assert "different labels for 1 images" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["", "--runs=one", "--runs=,one,"])
def test_fewer_than_two_runs_are_refused(given, capsys):
    assert run.main(["run.py", "--mode=compare", *([given] if given else [])]) == 2
    assert "must name at least two run directories" in capsys.readouterr().err


def test_a_run_is_not_compared_with_itself(capsys):
    assert run.main(["run.py", "--mode=compare", "--runs=/runs/a,/runs/b,/runs/a/"]) == 2
    assert "names /runs/a twice; name it once." in capsys.readouterr().err


def test_a_run_that_was_not_evaluated_is_refused(runs, capsys):
    (runs[1] / "predictions.parquet").unlink()
    assert run.main(["run.py", "--mode=compare", f"--runs={runs[0]},{runs[1]}"]) == 2
    assert f"python run.py --mode=eval --model_dir={runs[1]} writes it" in capsys.readouterr().err


def test_images_of_a_run_with_a_file_of_labels_are_found(runs, tmp_path, tmp_path_factory):
    photos = shutil.copytree(tiny_runs.photos(tmp_path_factory), tmp_path / "photos")
    rows = [
        f"{path.relative_to(photos)},{path.parent.name},{path.parts[-3]}"
        for path in sorted(photos.glob("*/*/*.png"))
    ]
    # The file does not list this image, with which the folders are no classes.
    (photos / "1" / "2" / "3").mkdir(parents=True)
    shutil.copy(photos / "test" / "red" / "0.png", photos / "1" / "2" / "3")
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(["file,label,split", *rows]))
    stored = directory.read_config(str(runs[0]))
    changed = dataclasses.replace(stored, data_dir=str(photos), labels=str(labels))
    directory.write_config(str(runs[0]), changed)
    names = predictions.read(str(runs[0])).names[:2]
    assert command._images(str(runs[0]), names).keys() == set(names)
