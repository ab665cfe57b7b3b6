"""Each benchmark runs as a program, in its smallest case, and prints the results it promises."""

import ast
from concurrent import futures
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import label_free, loss_compare, time_to_accuracy

ROOT = pathlib.Path(__file__).parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]


# Arguments of the smallest cases, slowest first. Relative paths are inside a temporary folder.
SMALLEST = {
    "survive.py": ["--kills=1", "--seed=1"],
    "accumulation.py": ["--smallest", "--data_dir=accumulation_data"],
    "loss_compare.py": ["HEAD", "HEAD", "--case=supcon", "--steps=1"],
    "time_to_accuracy.py": ["--smallest", "--folder=time_to_accuracy_runs"],
    "plain_keras.py": ["--smallest", "--rounds=1"],
    "input_pipeline.py": ["--smallest"],
    "label_free.py": ["--smallest", "--folder=label_free_runs"],
    "architectures.py": ["--smallest", "--rounds=1"],
    "loss.py": ["--smallest"],
    "train_step.py": ["--smallest", "--rounds=1"],
    "linear_evaluation.py": ["--smallest", "--rounds=1"],
    "fuzz_images.py": ["--files=100"],
    "channels.py": ["--smallest"],
    "serving.py": ["--smallest"],
    "startup.py": ["--smallest"],
}
# TensorFlow 2.15 has Keras 2 only, and 2.22 Keras 3 only.
HAS_BOTH_KERAS = importlib.util.find_spec("tf_keras") is not None
if HAS_BOTH_KERAS:
    SMALLEST["keras_versions.py"] = ["--smallest"]
# The Python that the others share has imported TensorFlow, with one version of Keras.
OF_ITS_OWN = {"keras_versions.py": sys.executable}


def _run(python, folder, name, *arguments):
    """Runs a benchmark in a folder, as a program in its own process."""
    return subprocess.run(
        [python, str(ROOT / "benchmarks" / name), *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": ""},
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder in which the smallest cases run."""
    return tmp_path_factory.mktemp("benchmarks")


@pytest.fixture(scope="module")
def processes(python, folder):
    """Starts all smallest cases, two at a time: most of their time is spent on one core."""
    pool = futures.ThreadPoolExecutor(2)
    yield {
        name: pool.submit(_run, OF_ITS_OWN.get(name, python), folder, name, *arguments, "--json")
        for name, arguments in SMALLEST.items()
    }
    pool.shutdown(cancel_futures=True)


def _results(processes, name):
    """Returns the JSON object in the last line of a benchmark's output."""
    process = processes[name].result()
    assert process.returncode == 0, process.stdout + process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def test_whatever_imports_tensorflow_chooses_keras_2_before():
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        imports = [
            name.name
            for statement in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(statement, ast.Import)
            for name in statement.names
        ]
        if "tensorflow" in imports:
            assert "simclr_tf" in imports[: imports.index("tensorflow")], path


def test_train_step_measures_a_step(processes):
    results = _results(processes, "train_step.py")
    assert results.keys() == {"resnet8_float32"}
    assert results["resnet8_float32"] > 0


def test_plain_keras_measures_the_same_network(processes):
    results = _results(processes, "plain_keras.py")  # It compares the numbers of weights.
    assert list(results) == ["ResNet-8, 8 px, batch 4"]
    (found,) = results.values()
    names = {f"{side}_{what}" for side in ("ours", "plain") for what in ("seconds", "gib")}
    assert found.keys() == names
    assert min(found.values()) > 0


def test_survive_kills_runs_and_finds_that_nothing_was_lost(processes):
    results = _results(processes, "survive.py")
    kills = {name: sum(phases.values()) for name, phases in results["kills"].items()}
    assert kills.keys() == {"SIGKILL", "SIGTERM"}
    assert sum(kills.values()) == 1
    assert results["finished"] >= 1
    assert [results[name] for name in ("lost", "unequal", "unreadable", "refused")] == [[]] * 4


def test_time_to_accuracy_trains_both_recipes(processes, folder):
    results = _results(processes, "time_to_accuracy.py")
    titles = [recipe.title for recipe in (time_to_accuracy.OURS, time_to_accuracy.OTHER)]
    assert [result["recipe"] for result in results] == titles
    for result in results:
        # Two batches of 32, and the step that the number of steps is rounded up by.
        assert result["images"] == 96 and min(result["minutes"]) > 0
        assert 0 <= min(result["accuracies"]) <= 1
    runs = folder / "time_to_accuracy_runs" / "smallest"
    names = ["cifar10_cpu_1_epochs_seed_0", "cifar10_resnet18_1_epochs_seed_0"]
    assert sorted(run.name for run in runs.iterdir() if run.is_dir()) == names
    depth = {name: "--resnet_depth=8" in (runs / name / "flags.txt").read_text() for name in names}
    assert depth == dict.fromkeys(names, True)
    # A run of other flags is not taken for this one.
    recipe = time_to_accuracy.OURS
    with pytest.raises(SystemExit, match="is of other flags"):
        time_to_accuracy.train(runs / names[0], recipe, {"dataset": "cifar10"})


def test_recipes_are_compared_after_the_same_time():
    def trained(epochs, minutes, accuracies):
        return time_to_accuracy.Trained("it", epochs, minutes, accuracies, 100)

    ours = [trained(8, [1.0, 1.1, 0.9], [0.5, 0.51, 0.49]), trained(80, [10.0] * 3, [0.6] * 3)]
    others = [trained(number, [number * 0.7] * 3, [0.3, 0.32, 0.28]) for number in (1, 2, 3)]
    (line,) = time_to_accuracy.compare(ours, others)  # Nothing took as long as 80 epochs.
    assert "it after 1.0 minutes against it after 1.4: +20.0 points (p = 0.0008" in line
    single = time_to_accuracy.compare([trained(8, [1.0], [0.5])], [trained(1, [1.0], [0.6])])
    assert single[0].endswith("-10.0 points")
    rows = time_to_accuracy.markdown(others[:1], [line]).splitlines()
    assert rows[2] == "| it | 1 | 0.7 | 200 | 30.0% | 30.0, 32.0, 28.0 |"


def test_accumulation_compares_a_batch_in_chunks_with_the_whole_batch(processes):
    results = _results(processes, "accumulation.py")
    runs = [results.pop(name) for name in ("8", "16_in_2", "16")]
    assert results.keys() == {"memory_ratio", "largest_relative_difference"}
    # The largest difference of two losses is that of the only step.
    in_chunks, at_once = (run["losses"] for run in runs[1:])
    expected = abs(in_chunks - at_once) / at_once
    assert results["largest_relative_difference"] == pytest.approx(expected)
    for run in runs:
        assert run.keys() == {"peak_mib", "estimated_mib", "seconds", "losses"}
        assert min(run.values()) > 0


def test_input_pipeline_measures_both_sizes_of_images(processes):
    results = _results(processes, "input_pipeline.py")
    assert results.pop("memory_growth_mib") >= 0
    assert results.keys() == {
        "ratio_32px",
        "ratio_224px_jpeg",
        "views_per_second_32px",
        "views_per_second_224px_jpeg",
    }
    assert min(results.values()) > 0


def test_channels_compares_the_input_of_two_kinds_of_images(processes):
    results = _results(processes, "channels.py")
    assert results.keys() == {"13 channels of uint16", "RGB of 8 bits", "ratio"}
    assert min(results.values()) > 0


def test_startup_measures_commands_and_the_parts_up_to_the_second_step(processes):
    results = _results(processes, "startup.py")
    assert min(results.pop(name) for name in ("--help", "a wrong flag", "--mode=runs")) > 0
    whole = results.pop("all, up to the second step")
    assert sum(results.values()) == pytest.approx(whole, abs=0.02)
    for name in ("network built", "first views made, step traced", "second step"):
        assert results[name] > 0, name


def test_fuzz_images_finds_no_problem(processes):
    results = _results(processes, "fuzz_images.py")
    kinds = results.pop("kinds")
    assert results.pop("files") == sum(kinds.values()) == 100
    assert {"JPEG", "PNG", "BMP", "GIF", "WebP", "TIFF"} < kinds.keys()
    assert results.pop("growth") >= 0
    assert results.keys() == {"crashes", "hangs", "false_reasons"}
    assert {count for counts in results.values() for count in counts.values()} == {0}


def test_loss_measures_every_loss(processes):
    results = _results(processes, "loss.py")
    names = ("reference", "dense", "blocked", "supcon_dense", "supcon_blocked")
    assert min(results.pop(f"{name}_seconds_128") for name in names) > 0
    assert min(results.pop(f"{name}_peak_mib_128") for name in names) >= 0
    assert not results


def test_linear_evaluation_measures_all_solvers(processes):
    results = _results(processes, "linear_evaluation.py")["smallest"]
    solvers = ("scikit-learn", "numpy", "tensorflow")
    assert min(results.pop(f"{name}_seconds") for name in (*solvers, "knn")) > 0
    reference, *others = (results.pop(f"{name}_accuracy") for name in solvers)
    assert 0.4 < reference < 1
    assert others == pytest.approx([reference] * 2, abs=0.02)
    assert not results


@pytest.mark.skipif(not HAS_BOTH_KERAS, reason="there are not both versions of Keras")
def test_keras_versions_measures_start_up_and_step_of_both(processes):
    results = _results(processes, "keras_versions.py")
    assert results.keys() == {"startup", "step"}
    for found in results.values():
        assert found["ratio"] == pytest.approx(found["3"] / found["2"])
        assert found["2"] > 0


def test_serving_measures_the_signatures_and_the_network(processes):
    results = _results(processes, "serving.py")
    assert results["seconds_to_first_answer"] > 0
    rows = results["rows"]
    names = ["network alone", "network alone, XLA", "prepared", "prepared, bfloat16"]
    names += ["serving_bytes"]
    assert [(row.pop("name"), row.pop("batch")) for row in rows] == [
        (name, batch) for batch in (1, 2) for name in names
    ]
    for row in rows:
        assert row.keys() == {"images_per_second", "p50_ms", "p99_ms"}
        assert min(row.values()) > 0 and row["p50_ms"] <= row["p99_ms"]


def test_label_free_correlates_its_runs(processes, folder):
    results = _results(processes, "label_free.py")
    assert results.pop("runs") == 2
    assert results.keys() == set(label_free.NUMBERS)
    paths = folder.glob("label_free_runs/*/result.json")
    accuracies = [json.loads(path.read_text())["linear_eval/top_1_accuracy"] for path in paths]
    assert {found["chosen"] for found in results.values()} <= set(accuracies)


def test_architectures_counts_and_measures_an_encoder(processes):
    results = _results(processes, "architectures.py")
    assert results.keys() == {"encoders", "recompute"}
    (encoder,) = results["encoders"]
    (recompute,) = results["recompute"]
    assert encoder.pop("name") == recompute.pop("name") == "ResNet-8 1x"
    assert encoder.keys() == {
        "features",
        "parameters",
        "giga_multiply_adds",
        "images_per_second",
        "peak_gib",
        "step_gib",
    }
    assert recompute.keys() == {"plain_gib", "recompute_gib", "time"}
    assert min(*encoder.values(), *recompute.values()) > 0


def _has_git_checkout():
    command = ["git", "-C", str(ROOT), "rev-parse", "--show-toplevel", "HEAD"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return pathlib.Path(process.stdout.splitlines()[0]).resolve() == ROOT.resolve()


@pytest.mark.keras2(reason="the optimizers that it records are Keras 2's")
def test_loss_compare_finds_a_commit_equal_to_itself(processes):
    if not _has_git_checkout():
        pytest.skip("the project is not in a git checkout, from which commits could be trained")
    results = _results(processes, "loss_compare.py")
    assert results["equal"] is True
    assert len(results["commits"]) == 2
    compared = {name: one["compared"] for name, one in results["cases"]["supcon"].items()}
    assert compared.pop("checkpoint variables") > 10
    assert compared.keys() > {"train/total_loss", "gradient_norm/replica_0"}
    assert set(compared.values()) == {1}


def test_loss_compare_finds_a_difference_in_the_last_bit():
    value = np.float32(0.25)
    a, b = {1: value, 2: value}, {1: value, 2: np.nextafter(value, np.float32(1))}
    assert loss_compare.compare(a, a).equal
    comparison = loss_compare.compare(a, b)
    assert not comparison.equal
    assert comparison.first_difference == 2
