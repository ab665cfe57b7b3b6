"""What google-research/simclr itself wrote: the same outputs here, and every verb takes it."""

import numpy as np
import pytest
import tensorflow as tf
import tiny_runs

import run
from simclr_tf.models import simclr
from simclr_tf.reference import loading
from simclr_tf.runs import initialization, teachers, weights

OUTPUTS = {"features": "final_avg_pool", "projection": "proj_head_output", "logits": "logits_sup"}

# The weights decide what the network is.
NETWORK = dict.fromkeys(("image_size", "resnet_depth", "proj_out_dim", "num_proj_layers"))


@pytest.fixture(scope="module")
def official(shared):
    """The folder of a run of the reference."""
    return shared / "data" / "official_r18"


@pytest.fixture(scope="module")
def outputs(official):
    """Images, and what the reference made of them."""
    return dict(np.load(official / "outputs.npz"))


@pytest.mark.parametrize("place", ["", "saved_model", "checkpoint", "checkpoint/ckpt-975"])
def test_its_weights_give_its_outputs(official, outputs, place):
    opened = weights.open_weights(str(official / place))
    assert opened.architecture == simclr.Architecture(
        resnet_depth=18,
        width_multiplier=1,
        stem="small",
        image_size=16,
        proj_head_mode="nonlinear",
        num_proj_layers=3,
        proj_out_dim=128,
        ft_proj_selector=0,
        batch_norm_decay=0.9,
        class_names=simclr.placeholder_class_names(10),
    )
    inferred = loading.find(str(official / place)).inferred
    assert not inferred.lacking and not inferred.unused
    model, report = initialization.build(opened)
    assert report[1:4] == [
        "encoder: loaded 105 of 105 variables",
        "projection head: loaded 14 of 14 variables",
        "linear head: loaded 2 of 2 variables",
    ]
    for name, value in model(outputs["images"]).items():
        np.testing.assert_allclose(value, outputs[OUTPUTS[name]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("place", ["", "saved_model", "checkpoint"])
def test_it_teaches(official, outputs, place):
    teacher = teachers.load(str(official / place), image_size=16)
    assert (teacher.num_classes, teacher.class_names) == (10, None)
    logits = tf.function(teacher.logits)(tf.constant(outputs["images"]))
    np.testing.assert_allclose(logits, outputs["logits_sup"], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_it_becomes_a_run_of_ours(official, outputs, tmp_path, capsys, photos):
    model_dir = tmp_path / "converted"
    given = [f"--checkpoint={official}/saved_model", f"--model_dir={model_dir}"]
    assert run.main(["run.py", "--mode=convert", *given]) == 0
    printed = capsys.readouterr().out
    assert "TF2 SavedModel of google-research/simclr, ResNet-18 1x" in printed
    assert "resnet_depth 18, image_size 16" in printed
    assert "encoder: loaded 105 of 105 variables" in printed
    assert f"--mode=finetune --checkpoint={model_dir}" in printed
    assert "--dataset=cifar10\n" in (model_dir / "flags.txt").read_text()  # From its flags.json.
    served = tf.saved_model.load(str(model_dir / "saved_model" / "0"))
    features = served.signatures["serving_default"](images=tf.constant(outputs["images"]))
    np.testing.assert_allclose(
        features["features"], outputs["final_avg_pool"], rtol=1e-4, atol=1e-4
    )
    assert run.main(["run.py", "--mode=convert", *given]) == 2
    assert f"{model_dir} already holds a run" in capsys.readouterr().err
    # Three classes of photos are not its ten, so its linear head is not asked.
    assert tiny_runs.main("eval", model_dir, photos, **NETWORK) == 0
    assert "has 10 classes, which are not the 3 of image_folder" in capsys.readouterr().out
    result = tiny_runs.json_of(model_dir / "result.json")
    assert "eval/label_top_1_accuracy" not in result
    assert result["linear_eval/top_1_accuracy"] > 0.5


def test_a_run_starts_from_it(official, tmp_path, photos, capsys):
    changes = {
        **NETWORK,
        "train_steps": 0,
        "train_epochs": 0,
        "checkpoint": official / "checkpoint",
    }
    assert tiny_runs.main("finetune", tmp_path / "tuned", photos, **changes) == 0
    printed = capsys.readouterr().out
    assert "linear head: skipped (the checkpoint's head has different classes)" in printed
    stored = tiny_runs.json_of(tmp_path / "tuned" / "architecture.json")
    assert (stored["resnet_depth"], stored["stem"], stored["image_size"]) == (18, "small", 16)


def test_its_weights_are_evaluated_without_converting(official, tmp_path, photos, capsys):
    changes = {**NETWORK, "checkpoint": official / "saved_model"}
    assert tiny_runs.main("eval", tmp_path / "told", photos, **changes) == 0
    assert "encoder: loaded 105 of 105 variables" in capsys.readouterr().out
    result = tiny_runs.json_of(tmp_path / "told" / "result.json")
    assert result["linear_eval/top_1_accuracy"] > 0.5
