"""--mode=export: SavedModels in the format of google-research/simclr, and for serving."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import shutil

import numpy as np
import pytest
import reference_r18
import tensorflow as tf
import tiny_runs

import run
from simclr_tf import errors
from simclr_tf.models import simclr
from simclr_tf.reference import mapping
from simclr_tf.runs import checkpoints, directory, initialization, weights
from simclr_tf.serving import export, reference_format

# The smallest network of the reference.
ARCHITECTURE = dataclasses.replace(reference_r18.ARCHITECTURE, class_names=tuple("abcdefghij"))
STEP = 7


def untrained_run(model_dir: pathlib.Path, architecture: simclr.Architecture) -> simclr.SimCLR:
    """Writes a run directory that holds a checkpoint, and returns its network."""
    model = simclr.SimCLR(architecture, seed=3)
    for variable in model.norm_variables():  # Zero gammas would hide the residual branches.
        variable.assign(0.5 * tf.ones_like(variable))
    directory.write_architecture(str(model_dir), architecture)
    saved = checkpoints.Checkpoints(str(model_dir), model, None)
    saved.step.assign(STEP)
    saved.save()
    return model


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    model_dir = tmp_path_factory.mktemp("reference") / "run"
    model_dir.mkdir()
    return model_dir, untrained_run(model_dir, ARCHITECTURE)


@pytest.fixture(scope="module")
def exported(run_dir):
    """Folder of the run's export in the format of the reference."""
    argv = ["run.py", "--mode=export", "--format=official", f"--model_dir={run_dir[0]}"]
    assert run.main(argv) == 0
    return run_dir[0] / reference_format.FOLDER / str(STEP)


@pytest.fixture
def loaded(exported):
    """The export of the run, loaded as in the notebooks of the reference."""
    return tf.saved_model.load(str(exported))


def some_images(count=4):
    return np.random.default_rng(0).uniform(size=(count, 16, 16, 3)).astype(np.float32)


def test_an_export_has_the_signature_outputs_and_variables_of_the_reference(loaded, golden):
    want = tiny_runs.json_of(golden / "reference_r18.json")
    assert len(want["calls"]) == 2 and len(want["variables"]) == 121
    assert reference_r18.signature_of(loaded) == want
    assert {v.name for v in loaded.variables} == want["variables"].keys()
    assert sorted(v.name for v in loaded.trainable_variables) == want["trained"]


@pytest.mark.parametrize("trainable", [False, True])
def test_an_export_has_the_outputs_of_the_reference_for_its_weights(loaded, trainable):
    given = reference_r18.weights()
    for variable in loaded.variables:
        variable.assign(given[variable.name])
    want = reference_r18.outputs(trainable=trainable)
    got = loaded(reference_r18.images(), trainable=trainable)
    assert got.keys() == want.keys()
    for name, value in want.items():
        sample = reference_r18.sample(got[name], value.size)
        np.testing.assert_allclose(sample, value, rtol=1e-4, atol=1e-4, err_msg=name)
    # Only training changes the moving averages, and nothing changes other variables.
    for variable in loaded.variables:
        name, now = variable.name, variable.numpy()
        if trainable and "moving" in name:
            want = reference_r18.golden()[f"averages/{name}"]
            np.testing.assert_allclose(
                reference_r18.sample(now, 32), want, rtol=1e-4, atol=1e-5, err_msg=name
            )
            assert not np.array_equal(now, given[name]), name
        else:
            np.testing.assert_array_equal(now, given[name], name)


@pytest.mark.slow
@pytest.mark.parametrize("trainable", [False, True])
def test_an_export_has_the_outputs_of_a_trained_model_of_the_reference(loaded, shared, trainable):
    reference = tf.saved_model.load(str(shared / "data" / "official_r18" / "saved_model"))
    assert reference_r18.signature_of(loaded) == reference_r18.signature_of(reference)
    functions = reference.__call__.concrete_functions
    given = {v.name: v for function in functions for v in function.graph.variables}
    before = {name: variable.numpy() for name, variable in given.items()}
    for variable in loaded.variables:
        variable.assign(given[variable.name])
    images = some_images()
    want, got = reference(images, trainable=trainable), loaded(images, trainable=trainable)
    assert got.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-4, atol=1e-4, err_msg=name)
    changed = set()
    for variable in loaded.variables:
        name, now = variable.name, given[variable.name].numpy()
        np.testing.assert_allclose(variable, now, rtol=1e-4, atol=1e-5, err_msg=name)
        changed |= {name} if not np.array_equal(now, before[name]) else set()
    assert bool(changed) is trainable


def test_an_export_has_the_outputs_of_the_network_of_the_run(run_dir, loaded):
    model, images = run_dir[1], some_images()
    want, got = model(images), loaded(images, trainable=False)
    for output, name in (("features", "final_avg_pool"), ("projection", "proj_head_output")):
        np.testing.assert_allclose(got[name], want[output], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got["logits_sup"], want["logits"], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(got["proj_head_input"], got["final_avg_pool"])
    larger = loaded(np.zeros((2, 24, 40, 3), np.float32), trainable=False)
    assert larger["block_group4"].shape == (2, 3, 5, 512)


def test_an_export_is_read_back_like_a_file_of_the_reference(run_dir, exported):
    opened = weights.open_weights(str(exported))
    assert opened.from_reference
    unnamed = dataclasses.replace(opened.architecture, class_names=ARCHITECTURE.class_names)
    # Weights do not determine the size of the images.
    assert dataclasses.replace(unnamed, image_size=16) == ARCHITECTURE
    model, _ = initialization.build(opened)
    for written, read in zip(run_dir[1].variables, model.variables):
        np.testing.assert_array_equal(written, read)


class FineTuned(tf.keras.Model):
    """A new linear head on a loaded model, as in the reference's README and notebook."""

    def __init__(self, loaded, variables, *, trainable, learning_rate):
        super().__init__()
        self.saved_model = loaded
        # With a fixed seed, so that the loss always decreases.
        initial = tf.keras.initializers.GlorotUniform(seed=0)
        self.dense_layer = tf.keras.layers.Dense(
            units=2, kernel_initializer=initial, name="head_supervised_new"
        )
        self.optimizer = tf.keras.optimizers.SGD(learning_rate)
        self.variables_to_train, self.update_averages = variables, trainable

    def call(self, x):
        with tf.GradientTape() as tape:
            outputs = self.saved_model(x["image"], trainable=self.update_averages)
            logits = self.dense_layer(outputs["final_avg_pool"])
            loss = tf.reduce_mean(
                tf.nn.softmax_cross_entropy_with_logits(
                    labels=tf.one_hot(x["label"], 2), logits=logits
                )
            )
        weights = [*self.variables_to_train, *self.dense_layer.trainable_weights]
        gradients = tape.gradient(loss, weights)
        self.optimizer.apply_gradients(zip(gradients, weights))
        return loss


def fine_tune(loaded, variables, steps=4, **settings):
    """Returns the losses of some steps on two images."""
    model = FineTuned(loaded, variables, **settings)
    train_step = tf.function(lambda x: model(x))
    batch = {"image": tf.constant(some_images(2)), "label": tf.constant([0, 1])}
    return [float(train_step(batch)) for _ in range(steps)]


@pytest.mark.exhaustive
def test_training_a_linear_head_on_an_export_does_not_change_the_export(loaded):
    before = [variable.numpy() for variable in loaded.variables]
    losses = fine_tune(loaded, [], trainable=False, learning_rate=1e-3)
    assert all(later < earlier for earlier, later in itertools.pairwise(losses)), losses
    assert all(np.array_equal(v, old) for v, old in zip(loaded.variables, before))


@pytest.mark.exhaustive
def test_the_encoder_of_an_export_can_be_fine_tuned(loaded):
    before = {variable.name: variable.numpy() for variable in loaded.variables}
    encoder = [v for v in loaded.trainable_variables_list if v.name.startswith("resnet")]
    assert len(encoder) == 63  # 21 convolutions, and gamma and beta of as many batch norms.
    losses = fine_tune(loaded, encoder, trainable=True, learning_rate=1e-3)
    assert losses[-1] < 0.9 * losses[0]
    same = {v.name for v in loaded.variables if np.array_equal(v, before[v.name])}
    assert not {name for name in same if name.startswith("resnet")}
    # The projection head is not trained; only its moving averages change.
    heads = {v.name for v in loaded.trainable_variables_list if not v.name.startswith("resnet")}
    assert same == heads


def _outputs(architecture):
    model = simclr.SimCLR(architecture, seed=0)
    return model, reference_format.reference_model(model)(some_images(), trainable=False)


def test_a_run_without_heads_has_no_logits(capsys, monkeypatch, tmp_path):
    bare = {"class_names": None, "proj_head_mode": "none"}
    model, outputs = _outputs(simclr.Architecture(**{**vars(ARCHITECTURE), **bare}))
    assert model.linear_head is None
    assert "logits_sup" not in outputs
    np.testing.assert_array_equal(outputs["proj_head_output"], outputs["final_avg_pool"])
    untrained_run(tmp_path, model.architecture)
    monkeypatch.setattr(reference_format, "export_reference_model", lambda *_, **__: "there")
    argv = ["run.py", "--mode=export", "--format=official", f"--model_dir={tmp_path}"]
    assert run.main(argv) == 0
    assert "no logits_sup" in " ".join(capsys.readouterr().out.split())


def test_the_input_of_the_linear_head_is_the_selected_stage():
    changes = {"proj_head_mode": "linear", "ft_proj_selector": 1, "proj_out_dim": 32}
    model, outputs = _outputs(simclr.Architecture(**{**vars(ARCHITECTURE), **changes}))
    want = model(some_images())
    np.testing.assert_allclose(outputs["logits_sup"], want["logits"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(outputs["proj_head_output"], want["projection"], rtol=1e-5)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_variables_of_selective_kernels_have_the_names_of_the_reference(golden):
    changes = {
        "resnet_depth": 50,
        "sk_ratio": 0.0625,
        "stem": "imagenet",
        "image_size": 32,
        "class_names": tuple(map(str, range(1000))),
    }
    model = simclr.SimCLR(simclr.Architecture(**{**vars(ARCHITECTURE), **changes}), seed=0)
    module = reference_format.reference_model(model)
    listed = golden / "names" / "tf2_variables_r50_sk0.0625.txt"
    expected = dict(line.split(" ", 1) for line in listed.read_text().splitlines())
    exported = {v.name.removesuffix(":0"): str(tuple(v.shape)) for v in module.variables}
    assert exported == expected
    images = np.random.default_rng(0).uniform(size=(2, 32, 32, 3)).astype(np.float32)
    outputs, want = module(images, trainable=False), model(images)
    np.testing.assert_allclose(outputs["logits_sup"], want["logits"], rtol=1e-5, atol=1e-5)
    assert outputs["initial_conv"].shape == (2, 16, 16, 64)


def test_export_repeats_the_saved_model_of_training(pretrained):
    (written,) = (pretrained / "saved_model").iterdir()
    images = tf.constant(some_images())
    want = tf.saved_model.load(str(written)).signatures["serving_default"](images=images)
    shutil.rmtree(written)
    assert run.main(["run.py", "--mode=export", f"--model_dir={pretrained}"]) == 0
    got = tf.saved_model.load(str(written)).signatures["serving_default"](images=images)
    np.testing.assert_allclose(got["features"], want["features"], rtol=1e-6)


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("name", ["", "ckpt-2"])
def test_the_checkpoint_and_the_folder_of_an_export_can_be_chosen(
    pretrained, tmp_path, monkeypatch, name, elsewhere
):
    calls = []
    monkeypatch.setattr(export, "export", lambda *a, **k: calls.append((a, k)) or "there")
    argv = ["run.py", "--mode=export", f"--checkpoint={pretrained / name}"]
    model_dir = tmp_path / "elsewhere" if elsewhere else pretrained
    assert run.main([*argv, *([f"--model_dir={model_dir}"] if elsewhere else [])]) == 0
    (((model, folder, step), _),) = calls
    assert (folder, step) == (str(model_dir), 2 if name else 4)
    stored = tiny_runs.part(tiny_runs.weights(pretrained, step=step), "encoder")
    kernel = model.encoder.stem_conv.kernel.numpy()
    assert any(np.array_equal(value, kernel) for value in stored.values())


def test_weights_of_the_reference_are_exported_without_conversion(
    tmp_path, tmp_path_factory, monkeypatch
):
    calls = []
    monkeypatch.setattr(
        reference_format, "export_reference_model", lambda *a, **_: calls.append(a) or "there"
    )
    source = reference_r18.folder(tmp_path_factory)
    argv = ["run.py", "--mode=export", "--format=official", f"--checkpoint={source}/saved_model"]
    assert run.main([*argv, f"--model_dir={tmp_path}"]) == 0
    ((model, model_dir, _),) = calls
    logits, want = model(reference_r18.images())["logits"], reference_r18.outputs(trainable=False)
    np.testing.assert_allclose(np.ravel(logits), want["logits_sup"], rtol=1e-4, atol=1e-4)
    assert model_dir == str(tmp_path)
    assert run.main(argv) == 2  # Nothing is written into the folder of the reference.


REFUSED = {
    "nothing to export": ([], ["has nothing to export", "--model_dir", "--checkpoint"]),
    "a folder without a run": (["--model_dir={tmp}"], ["--model_dir={tmp}", "no checkpoint"]),
    "a network that the reference lacks": (
        ["--model_dir={run}", "--format=official"],
        ["ResNet-8", "18, 34, 50, 101, 152, 200"],
    ),
    "another network than the run's": (
        ["--model_dir={run}", "--resnet_depth=18"],
        ["resnet_depth is 8 there and 18 here"],
    ),
    "a format that does not exist": (
        ["--format=tensorrt"],
        ["--format", "serving, official, tflite, onnx", "tensorrt"],
    ),
    "a format for another mode": (
        ["--format=official", "--mode=train", "--dataset=digits"],
        ["--format=official applies only to --mode=export (the mode is train)"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_exported_is_refused(case, pretrained, tmp_path, capsys):
    arguments, words = REFUSED[case]
    paths = {"run": pretrained, "tmp": tmp_path / "empty"}
    paths["tmp"].mkdir()
    argv = ["run.py", "--mode=export", *(a.format(**paths) for a in arguments)]
    assert run.main(argv) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1
    assert [word for word in words if word.format(**paths) not in message] == [], message


@pytest.mark.parametrize("change", [{"normalize_features": True}, {"proj_head_bn": False}])
def test_networks_of_supcon_cannot_be_exported_in_the_format_of_the_reference(change):
    architecture = dataclasses.replace(ARCHITECTURE, **change)
    with pytest.raises(errors.UserError, match="its format cannot represent a network"):
        mapping.network_of(architecture)


def test_a_run_without_architecture_json_is_refused(pretrained, capsys):
    (pretrained / "architecture.json").unlink()
    assert run.main(["run.py", "--mode=export", f"--model_dir={pretrained}"]) == 2
    assert "architecture.json" in capsys.readouterr().err
