"""SavedModels need TensorFlow but not this package, and return the features of the network."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
import tiny_runs

from simclr_tf.commands import train
from simclr_tf.data import crops, decode
from simclr_tf.models import simclr
from simclr_tf.runs import checkpoints, directory
from simclr_tf.serving import export

# Ops that a server of models may lack, or that belong to training on several devices.
UNWANTED = ("PyFunc", "EagerPyFunc", "Collective", "Nccl", "CrossReplica", "XlaLaunch", "NcclAll")


KINDS = ["float32", "bfloat16"]


@pytest.fixture(scope="module")
def run_dirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """Two run directories with the same encoder: of float32 and of bfloat16 arithmetic."""
    pretrained = tiny_runs.pretrained(tmp_path_factory)
    mixed = tmp_path_factory.mktemp("runs") / "mixed"
    photos = tiny_runs.photos(tmp_path_factory)
    changes = {
        "checkpoint": pretrained,
        "fine_tune_after_block": 4,
        "mixed_precision": "bfloat16",
        "train_steps": 1,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "_show_views", lambda *_: None)
        assert tiny_runs.main("finetune", mixed, photos, **changes) == 0
    return {"float32": pretrained, "bfloat16": mixed}


def exported(model_dir: pathlib.Path) -> pathlib.Path:
    (folder,) = (model_dir / "saved_model").iterdir()
    return folder


def model_of(model_dir: pathlib.Path) -> simclr.SimCLR:
    """Returns the network of the checkpoint, in float32 and without a strategy."""
    architecture = directory.read_architecture(str(model_dir))
    assert architecture is not None
    model = simclr.SimCLR(architecture, seed=1)
    assert checkpoints.Checkpoints(str(model_dir), model, None).restore_latest()
    return model


def outputs_of(model: simclr.SimCLR, images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the outputs of evaluation for images (b, h, w, 3) in [0, 1]."""
    prepared = tf.stack([crops.evaluation_image(tf.constant(image), 8) for image in images])
    outputs = model(prepared, training=False)
    return {name: outputs[name].numpy() for name in ("features", "logits")}


def features_of(model: simclr.SimCLR, images: np.ndarray) -> np.ndarray:
    """Returns the features (b, f) of evaluation for images (b, h, w, 3) in [0, 1]."""
    return outputs_of(model, images)["features"]


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_for_images_of_any_size_and_number_are_those_of_evaluation(run_dirs, kind):
    model = model_of(run_dirs[kind])
    serve = tf.saved_model.load(str(exported(run_dirs[kind]))).signatures["serving_default"]
    rng = np.random.default_rng(0)
    for shape in [(1, 8, 8, 3), (3, 8, 8, 3), (2, 30, 17, 3), (5, 9, 40, 3)]:
        images = rng.uniform(size=shape).astype(np.float32)
        got = serve(images=tf.constant(images))
        assert got["features"].shape == (shape[0], 64)
        assert got["logits"].shape == (shape[0], 3)
        assert np.ptp(got["features"]) > 0.01
        for name, want in outputs_of(model, images).items():
            np.testing.assert_allclose(got[name], want, rtol=1e-5, atol=1e-5)


# Settings of the network on which the served outputs depend.
SERVED = {
    "no linear head": ({"class_names": None}, {"features"}),
    "features of length 1": ({"normalize_features": True}, {"features", "logits"}),
    "logits from a stage of the head": ({"ft_proj_selector": 1}, {"features", "logits"}),
    "a head without batch norm": (
        {"ft_proj_selector": -1, "proj_head_bn": False},
        {"features", "logits"},
    ),
}


@pytest.mark.parametrize("changes, names", SERVED.values(), ids=SERVED.keys())
def test_served_outputs_are_those_of_the_network(tmp_path, changes, names):
    model = simclr.SimCLR(dataclasses.replace(tiny_runs.ARCHITECTURE, **changes), seed=3)
    folder = export.export(model, str(tmp_path), 1)
    served = tf.saved_model.load(folder).signatures["serving_default"]
    images = np.random.default_rng(5).uniform(size=(4, 8, 8, 3)).astype(np.float32)
    got, want = served(images=tf.constant(images)), model(images)
    assert set(got) == names
    for name in names:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-5, atol=1e-6)
    if changes.get("normalize_features"):
        np.testing.assert_allclose(np.linalg.norm(got["features"], axis=1), 1, rtol=1e-5)
    files = {path.name for path in pathlib.Path(folder).iterdir()}
    assert "keras_metadata.pb" not in files


def test_signatures_have_the_documented_names_and_types(run_dirs):
    signatures = tf.saved_model.load(str(exported(run_dirs["float32"]))).signatures
    expected = {
        "serving_default": ("images", [None, None, None, 3], tf.float32),
        "serving_uint8": ("images", [None, None, None, 3], tf.uint8),
        "prepared": ("images", [None, 8, 8, 3], tf.float32),
        "serving_bytes": ("image_bytes", [None], tf.string),
        "serving_bytes_strict": ("image_bytes", [None], tf.string),
    }
    assert set(signatures) == set(expected)
    for name, (argument, shape, dtype) in expected.items():
        signature = signatures[name]
        inputs = signature.structured_input_signature[1]
        assert inputs == {argument: tf.TensorSpec(shape, dtype, name=argument)}
        of_outputs = {one: spec.dtype for one, spec in signature.structured_outputs.items()}
        valid = {"valid": tf.bool} if name == "serving_bytes" else {}
        assert of_outputs == {"features": tf.float32, "logits": tf.float32, **valid}


@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_contains_only_standard_operations_in_float32(run_dirs, kind):
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((exported(run_dirs[kind]) / "saved_model.pb").read_bytes())
    (graph,) = (meta.graph_def for meta in saved.meta_graphs)
    functions = graph.library.function
    nodes = [*graph.node, *(node for function in functions for node in function.node_def)]
    ops = {node.op for node in nodes}
    assert "Conv2D" in ops
    assert [op for op in ops if op.startswith(UNWANTED)] == []
    # tf.raw_ops lists the operations of TensorFlow itself.
    assert [op for op in ops if not hasattr(tf.raw_ops, op)] == []
    assert not [node.name for node in nodes if node.attr["T"].type == tf.bfloat16.as_datatype_enum]


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_run_on_two_replicas_exports_the_network_of_one_device(
    run_dirs, tmp_path_factory, monkeypatch
):
    monkeypatch.setattr(train, "_show_views", lambda *_: None)
    model_dir = tmp_path_factory.mktemp("runs") / "replicas"
    photos = tiny_runs.photos(tmp_path_factory)
    changes = {**tiny_runs.NO_COLOR, "num_virtual_cpus": 2}
    assert tiny_runs.main("pretrain", model_dir, photos, **changes) == 0
    one, two = (tiny_runs.weights(path, step=2) for path in (run_dirs["float32"], model_dir))
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=1e-3, atol=1e-4, err_msg=name)
    images = np.random.default_rng(2).uniform(size=(3, 12, 8, 3)).astype(np.float32)
    serve = tf.saved_model.load(str(exported(model_dir))).signatures["serving_default"]
    want = features_of(model_of(model_dir), images)
    np.testing.assert_allclose(serve(images=tf.constant(images))["features"], want, atol=1e-5)


# The program of a user without this package.
ELSEWHERE = """
import json, pathlib, sys
import numpy as np
import tensorflow as tf

try:
    import simclr_tf
except ImportError:
    pass
else:
    sys.exit("simclr_tf can be imported here")
folder, *paths = sys.argv[1:]
signatures = tf.saved_model.load(folder).signatures
images = np.load("images.npy")
files = [pathlib.Path(path).read_bytes() for path in paths]
of_images = signatures["serving_default"](images=tf.constant(images))["features"]
of_bytes = signatures["serving_bytes"](image_bytes=tf.constant(files))["features"]
print(json.dumps({"images": of_images.numpy().tolist(), "bytes": of_bytes.numpy().tolist()}))
"""


def test_a_process_without_this_project_gets_the_same_features(run_dirs, tmp_path):
    model_dir = run_dirs["float32"]
    rng = np.random.default_rng(1)
    images = rng.uniform(size=(3, 21, 13, 3)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    smooth = np.kron(rng.integers(0, 256, (4, 5, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    (tmp_path / "a.jpg").write_bytes(tf.io.encode_jpeg(smooth, quality=80).numpy())
    (tmp_path / "b.png").write_bytes(tf.io.encode_png(smooth[:20, :9]).numpy())
    (tmp_path / "grey.png").write_bytes(tf.io.encode_png(smooth[..., :1]).numpy())
    files = ["a.jpg", "b.png", "grey.png"]
    environment = {
        k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "TF_USE_LEGACY_KERAS")
    }
    process = subprocess.run(
        [sys.executable, "-I", "-c", ELSEWHERE, str(exported(model_dir)), *files],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    got = json.loads(process.stdout.splitlines()[-1])
    model = model_of(model_dir)
    np.testing.assert_allclose(got["images"], features_of(model, images), rtol=1e-5, atol=1e-5)
    decoded = [decode.decode_image((tmp_path / name).read_bytes()) for name in files]
    want = [
        features_of(model, tf.image.convert_image_dtype(image, tf.float32)[tf.newaxis].numpy())
        for image in decoded
    ]
    np.testing.assert_allclose(got["bytes"], np.concatenate(want), rtol=1e-5, atol=1e-5)


def test_only_the_newest_exports_are_kept_and_nothing_else_is_removed(tmp_path, monkeypatch):
    def save(module, folder, signatures):
        del module, signatures
        os.makedirs(folder)

    monkeypatch.setattr(tf.saved_model, "save", save)
    architecture = simclr.Architecture(8, 1, "small", 8, "linear", 2, 8, 0, 0.9, None)
    model = simclr.SimCLR(architecture, seed=0)
    for name in ("best", "003"):
        (tmp_path / "saved_model" / name).mkdir(parents=True)
    for step in (2, 4, 10):
        export.export(model, str(tmp_path), step, keep=2)
    left = {path.name for path in (tmp_path / "saved_model").iterdir()}
    assert left == {"4", "10", "best", "003"}
