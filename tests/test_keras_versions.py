"""Keras 2 and 3: which is used, what is stored, and runs that change from one to the other."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import few_steps
import pytest
import tensorflow as tf
import tiny_runs

import simclr_tf
from simclr_tf import config, distribute, keras_api, keras_optimizers
from simclr_tf.runs import checkpoints, environment
from simclr_tf.training import lars

ROOT = pathlib.Path(__file__).parents[1]
OTHER = {2: 3, 3: 2}[simclr_tf.KERAS]


@pytest.mark.parametrize(
    ("wanted", "tensorflow", "tf_keras", "chosen"),
    [
        ("auto", "2.15.1", None, 2),
        ("2", "2.15.1", None, 2),
        ("auto", "2.21.0", "2.21.0", 2),
        ("3", "2.21.0", "2.21.0", 3),
        ("2", "2.22.0rc0", "2.21.0", 2),
        # tf-keras has no version for this TensorFlow.
        ("auto", "2.22.0rc0", None, 3),
        ("auto", "2.22.0rc0", "2.21.0", 3),
    ],
)
def test_keras_2_is_used_where_it_exists_unless_the_other_is_wanted(
    wanted, tensorflow, tf_keras, chosen
):
    assert simclr_tf.choose_keras(wanted, tensorflow, tf_keras) == chosen


@pytest.mark.parametrize(
    ("wanted", "tensorflow", "message"),
    [
        ("4", "2.21.0", "SIMCLR_KERAS=4 is not 2, 3 or auto"),
        ("3", "2.15.1", "SIMCLR_KERAS=3 needs TensorFlow 2.16 or newer, and 2.15.1 is installed"),
        (
            "2",
            "2.22.0",
            "needs the package tf-keras; install tf-keras==2.22.*, or set SIMCLR_KERAS",
        ),
    ],
)
def test_a_keras_that_cannot_be_used_is_refused(wanted, tensorflow, message):
    with pytest.raises(ImportError) as raised:
        simclr_tf.choose_keras(wanted, tensorflow, None)
    assert message in str(raised.value)


def test_the_program_says_in_one_sentence_that_there_is_no_such_keras():
    command = [sys.executable, str(ROOT / "run.py"), "--help"]
    environ = {**os.environ, "SIMCLR_KERAS": "4", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environ, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: SIMCLR_KERAS=4 is not 2, 3 or auto; set one of these.\n"


def test_the_keras_is_the_chosen_one_and_is_described():
    described = environment.describe(tf.distribute.get_strategy())["keras"]
    assert int(described.split(".")[0]) == simclr_tf.KERAS
    assert (simclr_tf.KERAS == 3) == keras_api.IS_3


@pytest.mark.parametrize(
    "make", [keras_optimizers.SGD, lambda rate: lars.LARS(rate, excluded_variables=[])]
)
@pytest.mark.parametrize(("sums", "moved"), [(True, 2), (False, 1)])
def test_gradients_are_summed_over_replicas_once(make, sums, moved):
    strategy = distribute.virtual_cpu_strategy(2)
    with strategy.scope():
        variable = tf.Variable([0.0])  # For LARS, a trust ratio of 1.
        optimizer = make(0.5)
        optimizer.build([variable])

    def on_replica():
        pairs = [(tf.ones([1]), variable)]
        optimizer.apply_gradients(pairs, experimental_aggregate_gradients=sums)

    strategy.run(on_replica)
    assert variable.numpy() == pytest.approx(-0.5 * moved)


# The network and, if its optimizer is stored too, the run.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "lars": ({}, {"optimizer": "lars"}),
    "momentum in float16": (
        {"mixed_precision": "float16"},
        {"optimizer": "momentum", "mixed_precision": "float16"},
    ),
    "adam": ({"encoder": "tiny_encoders:sequential"}, {"optimizer": "adam"}),
    "rmsprop": ({"encoder": "tiny_encoders:nested", "class_names": None}, {"optimizer": "rmsprop"}),
    "layers of other names": ({"encoder": "tiny_encoders:many_kinds"}, None),
    "ResNet-50, SK and SE": (
        {"resnet_depth": 50, "stem": "imagenet", "sk_ratio": 0.0625, "se_ratio": 0.1},
        None,
    ),
    "MobileNetV3Small": ({"encoder": "keras:MobileNetV3Small", "image_size": 32}, None),
}
LARGE = ("ResNet-50, SK and SE", "MobileNetV3Small")


def _stored(folder, case):
    """Returns the names and shapes of what a checkpoint stores."""
    network, run = CASES[case]
    model = few_steps.network(**network)
    optimizer = None
    if run is not None:
        optimizer = few_steps.learner_of(model, config.Config(**run)).optimizer
    checkpoints.Checkpoints(str(folder), model, optimizer).write(f"{folder}/all")
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    return {
        name.removesuffix(suffix): list(shape)
        for name, shape in tf.train.list_variables(f"{folder}/all")
        if name.endswith(suffix)
    }


@pytest.mark.parametrize(
    "case",
    [
        *(name for name in CASES if name not in LARGE),
        *(pytest.param(name, marks=pytest.mark.exhaustive) for name in LARGE),
    ],
)
def test_names_and_shapes_of_what_is_stored_are_as_ever(golden, tmp_path, case):
    # Whoever changes them makes all checkpoints that exist unreadable.
    assert _stored(tmp_path, case) == json.loads((golden / "stored_names.json").read_text())[case]


def _by_other_keras(*arguments):
    """Trains in a process with the other Keras."""
    environ = {
        name: value
        for name, value in os.environ.items()
        if name not in ("TF_USE_LEGACY_KERAS", "KERAS_BACKEND")
    }
    environ |= {"SIMCLR_KERAS": str(OTHER), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "tests" / "few_steps.py"), *map(str, arguments)]
    done = subprocess.run(command, env=environ, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _has_both():
    minor = tuple(map(int, tf.__version__.split(".")[:2]))
    return minor >= (2, 16) and importlib.util.find_spec("tf_keras") is not None


@pytest.mark.skipif(not _has_both(), reason="this environment has one Keras only")
@pytest.mark.parametrize("optimizer", ["lars", pytest.param("adamw", marks=pytest.mark.exhaustive)])
def test_a_run_goes_on_with_the_other_keras_as_if_it_had_not_changed(tmp_path, optimizer):
    run = few_steps.Run(optimizer)
    here, there, back = (tmp_path / name for name in ("here", "there", "back"))
    for folder in (here, there, back):
        folder.mkdir()
    run.train(2, f"{here}/ckpt-2")
    run.train(2, f"{here}/ckpt-4")
    _by_other_keras(optimizer, here, there)
    run.restore(f"{there}/ckpt-2")
    run.train(2, f"{back}/ckpt-4")
    want = {step: tiny_runs.weights(here, step) for step in (2, 4)}
    assert tiny_runs.equal(tiny_runs.weights(there, 2), want[2])  # From the same seed.
    assert tiny_runs.equal(tiny_runs.weights(there, 4), want[4])  # Begun here.
    assert tiny_runs.equal(tiny_runs.weights(back, 4), want[4])  # Begun there.
    assert not tiny_runs.equal(want[2], want[4])
