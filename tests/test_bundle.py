"""What lies beside an exported network, and the check in a process of its own."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2
import tiny_runs

from simclr_tf import errors
from simclr_tf.models import simclr
from simclr_tf.serving import bundle, export, outputs, reloading, warmup
from simclr_tf.serving import servable as servables


@pytest.fixture(scope="module")
def model() -> simclr.SimCLR:
    return simclr.SimCLR(tiny_runs.ARCHITECTURE, seed=3)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory) -> pathlib.Path:
    model_dir = tmp_path_factory.mktemp("run")
    return pathlib.Path(export.export(model, str(model_dir), 7, weights_license="CC-BY-4.0"))


def described(folder: pathlib.Path) -> dict[str, Any]:
    return json.loads((folder / bundle.DESCRIPTION).read_text())


def predict_requests(folder: pathlib.Path) -> list[Any]:
    records = tf.data.TFRecordDataset(str(folder / warmup.FILE))
    logs = [prediction_log_pb2.PredictionLog.FromString(one.numpy()) for one in records]
    return [log.predict_log.request for log in logs]


def test_there_is_a_warmup_request_for_every_signature_and_batch_size(folder):
    requests = predict_requests(folder)
    signatures = tf.saved_model.load(str(folder)).signatures
    found = set()
    for request in requests:
        ((name, tensor),) = request.inputs.items()
        values = tf.make_ndarray(tensor)
        signature = signatures[request.model_spec.signature_name]
        (taken,) = signature.structured_input_signature[1].values()
        assert (name, tf.as_dtype(tensor.dtype)) == (taken.name, taken.dtype)
        assert taken.shape.is_compatible_with(values.shape)
        found.add((request.model_spec.signature_name, len(values)))
    assert found == {(name, count) for name in signatures for count in warmup.BATCH_SIZES}
    assert len(requests) == len(found) <= 1000


def test_lengths_of_two_and_more_bytes_are_written_as_protocol_buffers_do():
    request = prediction_log_pb2.PredictionLog()
    tensor = tf.make_tensor_proto(np.zeros(20_000, np.float32)).SerializeToString()
    request.ParseFromString(warmup._prediction_log("prepared", "images", tensor))
    got = request.predict_log.request.inputs["images"]
    assert got.SerializeToString() == tensor


def test_the_loader_of_servers_replays_every_warmup_request(folder, model):
    """TensorFlow Serving loads the graph tagged serve, and feeds and fetches tensors by name."""
    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    (meta,) = (one for one in saved.meta_graphs if "serve" in one.meta_info_def.tags)
    grey = model(np.full((1, 8, 8, 3), 0.5, np.float32))["features"].numpy()
    requests = predict_requests(folder)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.saved_model.loader.load(session, ["serve"], str(folder))
        for request in requests:
            signature = meta.signature_def[request.model_spec.signature_name]
            assert signature.method_name == "tensorflow/serving/predict"
            fed = {
                signature.inputs[name].name: tf.make_ndarray(tensor)
                for name, tensor in request.inputs.items()
            }
            (count,) = {len(values) for values in fed.values()}
            fetched = {name: one.name for name, one in signature.outputs.items()}
            got = session.run(fetched, fed)
            assert {len(values) for values in got.values()} == {count}
            if request.model_spec.signature_name in ("prepared", "serving_default"):
                np.testing.assert_allclose(got["features"], np.repeat(grey, count, 0), atol=1e-5)
            if "valid" in got:
                assert got["valid"].all()


def test_model_json_describes_the_network_and_its_signatures(folder, model):
    got = described(folder)
    assert (got["step"], got["license"], got["encoder"]) == (7, "CC-BY-4.0", "ResNet-8")
    assert (got["image_size"], got["feature_width"], got["classes"]) == (8, 64, ["a", "b", "c"])
    assert got["metrics"] == got["measured_on"] == got["data"] == {}
    signatures = tf.saved_model.load(str(folder)).signatures
    assert set(got["signatures"]) == set(signatures)
    for name, one in got["signatures"].items():
        (taken,) = signatures[name].structured_input_signature[1].values()
        assert (one["input"], one["dtype"]) == (taken.name, taken.dtype.name)
        assert one["shape"] == taken.shape.as_list()
        assert set(one["outputs"]) == set(signatures[name].structured_outputs)
    assert set(got["outputs"]) == {"features", "logits", "valid"}
    assert got["preprocessing"]["crop"] == 1.0
    assert "8 x 8 pixels" in got["preprocessing"]["description"]
    weights = outputs.variables(model, ("features", "logits"))
    assert got["fingerprint"] == bundle.fingerprint(weights)


def test_the_fingerprint_changes_with_every_bit_and_shape():
    def of(values: Any) -> str:
        return bundle.fingerprint([tf.Variable(values)])

    assert of([1.0, 2.0]) == of([1.0, 2.0])
    assert len({of([1.0, 2.0]), of([1.0, np.nextafter(2, 3, dtype="f")]), of([[1.0], [2.0]])}) == 3


def test_a_run_is_described_with_its_data_and_after_an_evaluation_with_its_results(
    folder, pretrained
):
    (of_run,) = (pretrained / "saved_model").iterdir()
    before = described(of_run)
    assert before["data"]["images"] == 36
    assert before["data"]["dataset"] == "image_folder"
    environment = tiny_runs.json_of(pretrained / "environment.json")
    assert before["program"]["commit"] == environment["commit"]
    assert "These weights have not been evaluated." in (of_run / bundle.CARD).read_text()
    metrics = {
        "eval/label_top_1_accuracy": 0.5,
        "eval/label_top_1_accuracy_95": [0.25, 0.75],
        "linear_eval/top_1_accuracy": 0.75,
        "linear_eval/top_1_accuracy_95": [0.5, 0.9],
        "linear_eval/top_5_accuracy": 1.0,
        "baseline/random_encoder/top_1_accuracy": 0.375,
    }
    measured_on = {"dataset": "x", "eval_split": "test", "eval_examples": 12, "data_dir": None}
    others = {"eval/measured_on": measured_on, "train/seconds": 3.0, "knn/1/top_1_accuracy": 0.7}
    (pretrained / "result_4.json").write_text(json.dumps({**metrics, **others}))
    bundle.update_metrics(str(of_run), str(pretrained), 4)
    after = described(of_run)
    assert after.pop("metrics") == metrics and before.pop("metrics") == {}
    assert after.pop("measured_on") == {"dataset": "x", "split": "test", "images": 12}
    assert before.pop("measured_on") == {} and after == before
    card = (of_run / bundle.CARD).read_text()
    for row in (
        "| linear evaluation of the encoder | 75.0% | 50.0 to 90.0 | 100.0% |",
        "| online linear head | 50.0% | 25.0 to 75.0 |  |",
        "| linear evaluation, untrained encoder | 37.5% |  |  |",
        "Measured on dataset x, split test, images 12.",
    ):
        assert row in card.splitlines()


def test_the_classifier_of_a_finetuned_network_is_not_called_an_online_head(folder, tmp_path):
    copy = pathlib.Path(shutil.copytree(folder, tmp_path / "export"))
    (tmp_path / "flags.txt").write_text("--train_mode=finetune\n")
    (tmp_path / "result_7.json").write_text('{"eval/label_top_1_accuracy": 0.5}')
    bundle.update_metrics(str(copy), str(tmp_path), 7)
    assert "| trained classifier | 50.0% |  |  |" in (copy / bundle.CARD).read_text()


def test_an_export_without_a_description_is_left_as_it_is(tmp_path):
    bundle.update_metrics(str(tmp_path), str(tmp_path), 4)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["environment.json", "data.json", "flags.txt", "result_4.json"])
def test_damaged_files_of_a_run_do_not_keep_it_from_being_exported(model, tmp_path, name):
    (tmp_path / name).write_bytes(b"\xff{")
    folder = tmp_path / "folder"
    (folder / "assets.extra").mkdir(parents=True)
    bundle.write(
        str(folder),
        servables.Servable(model),
        model.architecture,
        str(tmp_path),
        4,
        weights_license=None,
    )
    assert described(folder)["program"]["simclr_tf"]


def test_the_card_is_plain_markdown(folder):
    card = (folder / bundle.CARD).read_text()
    for words in (
        "# ResNet-8, step 7",
        "scores of 3 classes",
        "takes `image_bytes` [None] string and returns `features`, `logits`, `valid`.",
        "its longer side may be 100 times the shorter one",
        "Licence of the weights: CC-BY-4.0",
        "in the order of the scores: a, b, c",
    ):
        assert words in card
    assert "{" not in card and "None," not in re.sub(r"\[None[^]]*\]", "", card)


@pytest.mark.usefixtures("with_fresh_process")
class TestInAFreshProcess:
    @pytest.fixture(autouse=True)
    def quick(self, python, monkeypatch):
        monkeypatch.setattr(sys, "executable", python)

    def test_an_export_is_loaded_and_compared(self, model, tmp_path, capsys):
        written = pathlib.Path(export.export(model, str(tmp_path), 1))
        assert written.is_dir() and "not loaded" not in capsys.readouterr().out

    def test_an_export_with_other_answers_is_not_kept(self, model, tmp_path, monkeypatch):
        def of_others(plain: simclr.SimCLR, images: tf.Tensor, names: Any) -> Any:
            found = compute(plain, images, names)
            return {
                **found,
                "features": found["features"] + 0.1 * tf.cast(tf.executing_eagerly(), tf.float32),
            }

        compute = outputs.compute
        monkeypatch.setattr(outputs, "compute", of_others)
        with pytest.raises(errors.UserError, match="its features differed from the network's"):
            export.export(model, str(tmp_path), 1)
        assert list((tmp_path / "saved_model").iterdir()) == []

    def test_an_export_that_cannot_be_loaded_is_not_kept(self, tmp_path, monkeypatch):
        def spoil(folder: str, *arguments: Any, **named: Any) -> None:
            os.remove(os.path.join(folder, "variables", "variables.index"))

        monkeypatch.setattr(bundle, "write", spoil)
        model = simclr.SimCLR(dataclasses.replace(tiny_runs.ARCHITECTURE), seed=0)
        with pytest.raises(errors.UserError, match=r"cannot load it .*tf\.py_function"):
            export.export(model, str(tmp_path), 1)
        assert list((tmp_path / "saved_model").iterdir()) == []


@pytest.mark.parametrize(
    ("program", "reason"),
    [("#!/bin/sh\nkill -9 $$\n", "ended by signal 9"), (None, "No such file or directory")],
)
@pytest.mark.usefixtures("with_fresh_process")
def test_where_no_process_can_run_a_warning_says_that_nothing_was_compared(
    model, tmp_path, monkeypatch, capsys, program, reason
):
    path = tmp_path / "program"
    if program is not None:
        path.write_text(program)
        path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))
    with reloading.fresh_process() as fresh:
        fresh.check(str(tmp_path), model, ("features",))
    printed = " ".join(capsys.readouterr().out.split())
    assert "was not loaded in a new process to check it" in printed and reason in printed


def test_a_process_that_takes_too_long_is_ended(model, tmp_path, monkeypatch, capsys):
    process = subprocess.Popen(
        ["sleep", "60"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    monkeypatch.setattr(reloading, "_SECONDS", 0.1)
    reloading.FreshProcess(process).check(str(tmp_path), model, ("features",))
    process.kill()
    process.communicate()
    assert "timed out" in capsys.readouterr().out
