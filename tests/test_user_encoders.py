"""Mistakes in users' own encoders are reported in one sentence that names the function."""

from __future__ import annotations

import types
import typing

import pytest
import tensorflow as tf
import tiny_runs

from simclr_tf import config, errors
from simclr_tf.models import keras_encoders, layers, user_encoders
from simclr_tf.runs import diagnosis

pytestmark = pytest.mark.usefixtures("stacks_of_operations")

SIDE = 8


def _encoder(name: str) -> keras_encoders.KerasEncoder:
    make = layers.LayerMaker(tf.keras.mixed_precision.Policy("float32"), 0)
    return keras_encoders.KerasEncoder(make, encoder=name, image_size=SIDE)


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        ("raises", "raised KeyError when it was called with input_shape=(8, 8, 3) ((8, 8, 3))"),
        ("exits", "raised SystemExit when it was called with input_shape=(8, 8, 3) (no network"),
        ("raises_in_a_layer", "raised AttributeError when its network was built (no such layer); "),
        ("other_rows", "maps 2 images to 18 rows, with the shape (18, 4); "),
        ("integers", "returns features of the type int32; they must be floating-point."),
        ("infinite", "maps images to features of which 72 of 72 are not finite"),
    ],
)
def test_a_mistake_is_reported_when_the_network_is_built(function, problem, capsys):
    with pytest.raises(errors.ArgumentError) as raised:
        _encoder(f"failing_encoders:{function}")
    assert raised.value.argument == "encoder"
    assert raised.value.value == f"failing_encoders:{function}"
    assert raised.value.problem.startswith(problem)
    # The traceback shows where the user's code failed.
    traceback = capsys.readouterr().err
    assert ("failing_encoders.py" in traceback) == ("raised" in problem)


def test_an_error_in_training_is_reported_if_it_comes_from_the_users_module(capsys):
    name = "failing_encoders:raises_in_training"
    encoder = _encoder(name)
    images = tf.zeros([2, SIDE, SIDE, 3])

    explained = user_encoders.explained_in_training
    with pytest.raises(errors.ArgumentError) as raised, explained(name):
        tf.function(lambda: encoder(images, training=True), autograph=True)()
    assert raised.value.problem.startswith("raised IndexError in training (layer 7); ")
    assert "failing_encoders.py" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError), explained(name):  # A mistake of this package.
        _ = 1 / 0


def test_a_module_that_cannot_be_imported_is_one_sentence_after_the_traceback(
    tmp_path, photos, monkeypatch, capsys
):
    (tmp_path / "divides_by_zero.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert tiny_runs.main("pretrain", tmp_path / "run", photos, encoder="divides_by_zero:make") == 2
    *traceback, sentence = capsys.readouterr().err.splitlines()
    assert traceback[0].startswith("Traceback")
    assert sentence == (
        "error: --encoder=divides_by_zero:make raised ZeroDivisionError when 'divides_by_zero' was "
        "imported (division by zero); correct its code, whose traceback is above."
    )


def test_a_network_that_xla_cannot_compile_is_reported(tmp_path):
    name = "failing_encoders:not_for_xla"
    encoder = _encoder(name)
    with pytest.raises(tf.errors.OpError) as raised:
        tf.function(lambda x: encoder(x)["features"], jit_compile=True)(
            tf.zeros([2, SIDE, SIDE, 3])
        )

    def explained(**settings):
        run = types.SimpleNamespace(
            config=config.Config(encoder=name, **settings),
            model_dir=str(tmp_path),
            data=types.SimpleNamespace(source=types.SimpleNamespace(reader=None)),
        )
        return diagnosis.explain_training_error(typing.cast(typing.Any, run), raised.value)

    message = str(explained(jit_compile=True))
    assert message.startswith(f"XLA cannot compile the training step with --encoder={name} (")
    assert message.endswith("leave out --jit_compile.")
    assert explained() is raised.value
