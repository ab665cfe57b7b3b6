"""Weights of google-research/simclr give the same outputs here, and every command accepts them.

The weights are made up (see reference_r18.py) and, if `shared` exists, those of a training run of
the reference.
"""

import numpy as np
import pytest
import reference_r18
import tensorflow as tf
import tiny_runs

import run
from simclr_tf.reference import loading
from simclr_tf.runs import initialization, teachers, weights

OUTPUTS = {"features": "final_avg_pool", "projection": "proj_head_output", "logits": "logits_sup"}

# Not given, because the weights determine the network.
NETWORK = dict.fromkeys(("image_size", "resnet_depth", "proj_out_dim", "num_proj_layers"))


@pytest.fixture(scope="module", params=["made up", pytest.param("real", marks=pytest.mark.slow)])
def reference_run(request, tmp_path_factory):
    """The folder of a run of the reference."""
    if request.param == "made up":
        return reference_r18.folder(tmp_path_factory)
    return request.getfixturevalue("shared") / "data" / "official_r18"


@pytest.fixture(scope="module")
def outputs(reference_run):
    """Images, and the reference's outputs for them."""
    real = reference_run / "outputs.npz"
    if real.exists():
        return dict(np.load(real))
    return {"images": reference_r18.images(), **reference_r18.outputs(trainable=False)}


# Commands use weights only through what the tests of both runs check.
made_up_run = pytest.mark.parametrize("reference_run", ["made up"], indirect=True)


def check_equal(value, want):
    """Asserts that an output, or a sample of it, equals that of the reference."""
    value = value if value.shape == want.shape else reference_r18.sample(value, want.size)
    np.testing.assert_allclose(value, want, rtol=1e-4, atol=1e-4)


# On both stacks, a SavedModel and a checkpoint; the others are ways to name these.
@pytest.mark.parametrize(
    "path",
    [
        pytest.param("", marks=pytest.mark.exhaustive),
        "saved_model",
        pytest.param("checkpoint", marks=pytest.mark.exhaustive),
        "checkpoint/ckpt-975",
    ],
)
def test_weights_of_the_reference_give_its_outputs(reference_run, outputs, path):
    opened = weights.open_weights(str(reference_run / path))
    assert opened.architecture == reference_r18.ARCHITECTURE
    inferred = loading.find(str(reference_run / path)).inferred
    assert not inferred.lacking and not inferred.unused
    model, report = initialization.build(opened)
    assert report[1:4] == [
        "encoder: loaded 105 of 105 variables",
        "projection head: loaded 14 of 14 variables",
        "linear head: loaded 2 of 2 variables",
    ]
    for name, value in model(outputs["images"]).items():
        check_equal(value, outputs[OUTPUTS[name]])


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("", marks=pytest.mark.exhaustive),
        "saved_model",
        pytest.param("checkpoint", marks=pytest.mark.exhaustive),
    ],
)
def test_a_run_of_the_reference_can_be_a_teacher(reference_run, outputs, path):
    teacher = teachers.load(str(reference_run / path), image_size=16)
    assert (teacher.num_classes, teacher.class_names) == (10, None)
    assert len(teacher.variables) >= 105  # All of the encoder.
    logits = tf.function(teacher.logits)(tf.constant(outputs["images"]))
    check_equal(logits, outputs["logits_sup"])


@pytest.mark.exhaustive
@made_up_run
@pytest.mark.slow
def test_a_run_of_the_reference_can_be_converted(reference_run, outputs, tmp_path, capsys, photos):
    model_dir = tmp_path / "converted"
    arguments = [f"--checkpoint={reference_run}/saved_model", f"--model_dir={model_dir}"]
    assert run.main(["run.py", "--mode=convert", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "TF2 SavedModel of google-research/simclr, ResNet-18 1x" in printed
    assert "--resnet_depth=18, --image_size=16" in printed
    assert "encoder: loaded 105 of 105 variables" in printed
    assert f"--mode=finetune --checkpoint={model_dir}" in printed
    assert "--dataset=cifar10\n" in (model_dir / "flags.txt").read_text()  # From its flags.json.
    served = tf.saved_model.load(str(model_dir / "saved_model" / "0"))
    features = served.signatures["serving_default"](images=tf.constant(outputs["images"]))
    check_equal(features["features"], outputs["final_avg_pool"])
    assert run.main(["run.py", "--mode=convert", *arguments]) == 2
    assert f"{model_dir} already contains a run" in capsys.readouterr().err
    # The photos have three classes instead of ten, so the linear head is not evaluated.
    assert tiny_runs.main("eval", model_dir, photos, **NETWORK) == 0
    assert "has 10 classes, which are not the 3 of image_folder" in capsys.readouterr().out
    result = tiny_runs.json_of(model_dir / "result.json")
    assert "eval/label_top_1_accuracy" not in result
    assert result["linear_eval/top_1_accuracy"] > 0.5


@made_up_run
def test_fine_tuning_starts_from_weights_of_the_reference(reference_run, tmp_path, photos, capsys):
    changes = {
        **NETWORK,
        "train_steps": 0,
        "train_epochs": 0,
        "checkpoint": reference_run / "checkpoint",
    }
    assert tiny_runs.main("finetune", tmp_path / "tuned", photos, **changes) == 0
    printed = capsys.readouterr().out
    assert "linear head: skipped (the checkpoint's head has different classes)" in printed
    stored = tiny_runs.json_of(tmp_path / "tuned" / "architecture.json")
    assert (stored["resnet_depth"], stored["stem"], stored["image_size"]) == (18, "small", 16)


@pytest.mark.exhaustive
@made_up_run
def test_weights_of_the_reference_are_evaluated_without_conversion(
    reference_run, tmp_path, photos, capsys
):
    changes = {**NETWORK, "checkpoint": reference_run / "saved_model"}
    assert tiny_runs.main("eval", tmp_path / "run", photos, **changes) == 0
    assert "encoder: loaded 105 of 105 variables" in capsys.readouterr().out
    result = tiny_runs.json_of(tmp_path / "run" / "result.json")
    assert result["linear_eval/top_1_accuracy"] > 0.5
