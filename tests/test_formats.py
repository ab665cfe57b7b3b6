"""Exports in other forms: TensorFlow Lite and bfloat16, what they cost, and what is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import pathlib
import shutil
import sys
import types
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
import tiny_runs

import run
from simclr_tf import errors
from simclr_tf.commands import conversion
from simclr_tf.data import evaluation_images, sources
from simclr_tf.models import simclr
from simclr_tf.runs import weights as weights_lib
from simclr_tf.serving import (
    bundle,
    converted,
    export,
    forms,
    onnx_format,
    outputs,
    reloading,
    tflite_format,
)


@pytest.fixture(scope="module")
def model() -> simclr.SimCLR:
    return simclr.SimCLR(tiny_runs.ARCHITECTURE, seed=3)


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(size=(count, 8, 8, 3)).astype(np.float32)


def described(folder: pathlib.Path) -> dict[str, Any]:
    return json.loads((folder / "model.json").read_text())


def program(*arguments: str) -> tuple[int, str]:
    """Returns the exit code and what an export prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = run.main(["run.py", "--mode=export", *arguments])
    return code, printed.getvalue()


@dataclasses.dataclass
class Exported:
    model_dir: pathlib.Path
    printed: str

    @property
    def folder(self) -> pathlib.Path:
        return self.model_dir / "tflite_int8" / "4"

    def interpreter(self) -> Any:
        return tf.lite.Interpreter(model_content=(self.folder / "model.tflite").read_bytes())


@pytest.fixture(scope="module")
def int8(tmp_path_factory) -> Exported:
    """A labelled run with an export in int8."""
    finished = tiny_runs.pretrained(tmp_path_factory)
    model_dir = pathlib.Path(shutil.copytree(finished, tmp_path_factory.mktemp("int8") / "run"))
    code, printed = program(f"--model_dir={model_dir}", "--format=tflite", "--export_dtype=int8")
    assert code == 0, printed
    return Exported(model_dir, printed)


def network_of(model_dir: pathlib.Path) -> simclr.SimCLR:
    weights = weights_lib.open_weights(str(model_dir))
    assert weights.architecture is not None
    model = simclr.SimCLR(weights.architecture, seed=0)
    for part in weights_lib.PARTS:
        assert weights.load(model, part) is None
    return model


def test_int8_is_measured_on_the_evaluation_split_with_the_linear_head(int8):
    found = described(int8.folder)["conversion"]
    source = sources.open_source(
        "image_folder", data_dir=str(tiny_runs_photos(int8.model_dir)), seed=0
    )
    (batch,) = evaluation_images.spread(
        source, "test", images=99, batch_size=99, image_size=8
    ).as_numpy_iterator()
    labels = batch["label"]
    assert len(labels) == 18
    run_int8 = tflite_format.load(str(int8.folder / "model.tflite"))(batch["image"])
    in_float32 = network_of(int8.model_dir)(batch["image"])["logits"].numpy()
    after = np.mean(np.argmax(run_int8["logits"], 1) == labels)
    before = np.mean(np.argmax(in_float32, 1) == labels)
    assert (found["split"], found["images"], found["calibration_images"]) == ("test", 18, 36)
    assert found["accuracy"] == pytest.approx(after)
    assert found["accuracy_float32"] == pytest.approx(before)
    assert found["accuracy_difference"] == pytest.approx(after - before)
    low, high = found["accuracy_difference_95"]
    assert low <= found["accuracy_difference"] <= high
    assert found["accuracy_95"][0] <= after <= found["accuracy_95"][1]
    assert found["ms_per_image"] > 0 and found["bytes_float32"] > 2 * found["bytes"]


def tiny_runs_photos(model_dir: pathlib.Path) -> str:
    (line,) = (
        one for one in (model_dir / "flags.txt").read_text().splitlines() if "--data_dir=" in one
    )
    return line.removeprefix("--data_dir=")


def test_what_int8_costs_is_printed_and_in_the_card_before_anybody_uses_it(int8):
    card = (int8.folder / bundle.CARD).read_text()
    found = described(int8.folder)["conversion"]
    (accuracy, difference, *_) = bundle.conversion_rows(found)
    for words in (
        accuracy[2],
        difference[2],
        "TensorFlow Lite model in int8, on 18 images of test",
    ):
        assert words in int8.printed, int8.printed
    assert f"| {' | '.join(accuracy)} |" in card.splitlines()
    assert f"| {' | '.join(difference)} |" in card.splitlines()
    assert "`model.json` has all of this" in card and "assets.extra" not in card
    assert "megapixels" not in card and "The program that calls the network does this." in card
    assert "This is the network in int8; its inputs and outputs are float32." in card


def test_int8_computes_in_integers_and_takes_and_returns_float32(int8):
    interpreter = int8.interpreter()
    dtypes = {one["dtype"] for one in interpreter.get_tensor_details()}
    assert np.int8 in dtypes and np.float16 not in dtypes
    runner = interpreter.get_signature_runner("prepared")
    details = {**runner.get_input_details(), **runner.get_output_details()}
    assert set(details) == {"images", "features", "logits"}
    assert {one["dtype"] for one in details.values()} == {np.float32}
    assert described(int8.folder)["signatures"].keys() == {"prepared"}


def test_int8_gives_almost_the_features_of_the_network(int8):
    batch = images(6)
    got = tflite_format.load(str(int8.folder / "model.tflite"))(batch)["features"]
    want = network_of(int8.model_dir)(batch)["features"].numpy()
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(want, axis=1)
    assert np.min(np.sum(got * want, axis=1) / lengths) > 0.99
    assert np.linalg.norm(got) == pytest.approx(np.linalg.norm(want), rel=0.1)


def test_an_evaluation_describes_its_results_in_other_forms_too(int8, tmp_path):
    copy = pathlib.Path(shutil.copytree(int8.folder, tmp_path / "export"))
    (tmp_path / "result_4.json").write_text('{"linear_eval/top_1_accuracy": 0.75}')
    bundle.update_metrics(str(copy), str(tmp_path), 4)
    assert described(copy)["metrics"] == {"linear_eval/top_1_accuracy": 0.75}
    card = (copy / bundle.CARD).read_text()
    assert "75.0%" in card and "## Conversion" in card
    assert not (copy / "assets.extra").exists()


def test_forms_have_folders_of_their_own():
    assert [form.folder for form in forms.ALL] == [
        *("saved_model", "saved_model_bfloat16", "tflite", "tflite_float16", "tflite_int8", "onnx")
    ]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_tensorflow_lite_has_all_outputs_of_the_network(model, tmp_path, dtype):
    names = outputs.choose(model, ("features", "embedding", "projection", "logits", "top_classes"))
    folders = []

    def examine(run: converted.Run, path: str) -> dict[str, Any]:
        folders.append(path)
        assert not (tmp_path / form.folder / "5").exists()
        for count in (1, 3):
            got = run(images(count))
            want = outputs.compute(model, tf.constant(images(count)), names)
            assert set(got) == set(names)
            for name, values in want.items():
                assert got[name].dtype == values.dtype.as_numpy_dtype
                np.testing.assert_allclose(
                    got[name], values, rtol=tolerance, atol=tolerance * np.max(values)
                )
        return {"not_measured": "of the test"}

    form, tolerance = forms.Form("tflite", dtype), 1e-5 if dtype == "float32" else 1e-2
    written = converted.export(
        model, str(tmp_path), 5, form=form, runtime=tflite_format, examine=examine, names=names
    )
    assert folders == [f"{written}.partial/model.tflite"]
    assert [path.name for path in (tmp_path / form.folder).iterdir()] == ["5"]
    size = (pathlib.Path(written) / "model.tflite").stat().st_size
    weights = sum(variable.shape.num_elements() for variable in outputs.variables(model, names))
    assert size < {"float32": 4.6, "float16": 2.8}[dtype] * weights
    assert "was not measured (of the test)" in (pathlib.Path(written) / bundle.CARD).read_text()


WRONG = {
    "other values": lambda found: {**found, "features": found["features"] + 0.1},
    "another dtype": lambda found: {**found, "features": found["features"].astype(np.float64)},
    "another shape": lambda found: {**found, "features": found["features"][:1]},
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_with_other_outputs_is_not_kept(model, tmp_path, case):
    def load(path: str) -> converted.Run:
        assert pathlib.Path(path).exists()
        network = converted.of_function(converted.Prepared(model, ("features",)).of_prepared)
        return lambda batch: WRONG[case](network(batch))

    runtime = types.SimpleNamespace(
        FILE="file", write=lambda path, *_: pathlib.Path(path).write_text(""), load=load
    )
    with pytest.raises(errors.UserError, match="its features differed from the network's"):
        converted.export(
            model,
            str(tmp_path),
            5,
            form=forms.Form("tflite"),
            runtime=runtime,
            examine=lambda *_: {},
            names=("features",),
        )
    assert list((tmp_path / "tflite").iterdir()) == []


@pytest.fixture(scope="module")
def bfloat16(model, tmp_path_factory) -> pathlib.Path:
    model_dir = tmp_path_factory.mktemp("bfloat16")
    return pathlib.Path(export.export(model, str(model_dir), 5, dtype="bfloat16"))


def test_a_saved_model_in_bfloat16_gives_almost_the_outputs_of_the_network(model, bfloat16):
    assert bfloat16.parent.name == "saved_model_bfloat16"
    signatures = tf.saved_model.load(str(bfloat16)).signatures
    batch = images(4)
    want = model(batch)
    files = [tf.io.encode_png(np.uint8(255 * one)).numpy() for one in batch]
    for name, given in {
        "prepared": batch,
        "serving_default": batch,
        "serving_uint8": np.uint8(255 * batch),
        "serving_bytes": files,
        "serving_bytes_strict": files,
    }.items():
        got = signatures[name](tf.constant(given))
        for output in ("features", "logits"):
            assert got[output].dtype == tf.float32
            assert reloading.is_close(output, got[output].numpy(), want[output].numpy(), "bfloat16")


def test_a_saved_model_in_bfloat16_computes_in_it(bfloat16):
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((bfloat16 / "saved_model.pb").read_bytes())
    functions = saved.meta_graphs[0].graph_def.library.function
    convolutions = [node for one in functions for node in one.node_def if node.op == "Conv2D"]
    assert {node.attr["T"].type for node in convolutions} == {tf.bfloat16.as_datatype_enum}
    found = json.loads((bfloat16 / bundle.DESCRIPTION).read_text())
    assert (found["format"], found["dtype"]) == ("serving", "bfloat16")


@pytest.mark.usefixtures("with_fresh_process")
def test_a_saved_model_in_bfloat16_is_compared_in_a_fresh_process(
    model, tmp_path, monkeypatch, python
):
    monkeypatch.setattr(sys, "executable", python)
    monkeypatch.setitem(reloading._TOLERANCES, "bfloat16", 1e-7)
    with pytest.raises(errors.UserError, match=r"logits differed .* leave out --export_dtype=bf"):
        export.export(model, str(tmp_path), 5, dtype="bfloat16")
    assert list((tmp_path / "saved_model_bfloat16").iterdir()) == []


def test_without_images_only_forms_that_keep_the_results_are_written(
    pretrained, model, monkeypatch, tmp_path, capsys
):
    """Where they could be measured, the network and its export are those of other tests."""
    exported = []
    monkeypatch.setattr(export, "export", lambda *_, **named: exported.append(named) or "folder")
    flags = (pretrained / "flags.txt").read_text()
    data = tiny_runs_photos(pretrained)
    (pretrained / "flags.txt").write_text(flags.replace(data, str(tmp_path / "gone")))
    code, printed = program(f"--model_dir={pretrained}", "--export_dtype=bfloat16")
    assert code == 0, printed
    found = exported[0]["examine"](None, "nowhere")
    assert "gone" in found["not_measured"]
    assert "What the SavedModel changes was not measured" in capsys.readouterr().out
    code, printed = program(
        f"--model_dir={pretrained}", "--format=tflite", "--export_dtype=float16"
    )
    assert code == 2
    for words in (
        "--export_dtype=float16 needs images, to measure",
        "gone",
        "--data_dir name other",
    ):
        assert words in printed
    assert not (pretrained / "tflite_float16").exists()
    # The images have moved.
    config = read_config(pretrained, data_dir=data)
    weights = weights_lib.open_weights(str(pretrained))
    found = conversion.images_of(config, weights, forms.Form("tflite", "int8"))
    assert (found.problem, found.split, found.count()) == (None, "test", 18)


def read_config(model_dir: pathlib.Path, **changes: Any) -> Any:
    from flags import command_line

    arguments = [f"--{name}={value}" for name, value in changes.items()]
    argv = ["run.py", "--mode=export", f"--model_dir={model_dir}", *arguments]
    return command_line.parse(argv).config


def test_without_labels_or_a_head_for_them_the_features_are_compared(pretrained, photos):
    weights = weights_lib.open_weights(str(pretrained))
    bare = dataclasses.replace(
        weights, architecture=dataclasses.replace(weights.architecture, class_names=None)
    )
    others = dataclasses.replace(
        weights, architecture=dataclasses.replace(weights.architecture, class_names=("x", "y"))
    )
    form = forms.Form("tflite", "int8")
    config = read_config(pretrained)
    assert conversion.images_of(config, bare, form).problem == "the network has no linear head"
    assert "are not those of the linear head" in conversion.images_of(config, others, form).problem
    unlabelled = read_config(pretrained, labels="none", train_split="train")
    found = conversion.images_of(unlabelled, weights, form)
    assert "has no labels" in found.problem


def test_images_are_taken_at_equal_distances_and_each_once(photos):
    source = sources.open_source("image_folder", data_dir=str(photos), seed=0)

    def taken(count: int) -> dict[str, np.ndarray]:
        batches = evaluation_images.spread(
            source, "train", images=count, batch_size=4, image_size=8
        ).as_numpy_iterator()
        parts = list(batches)
        return {name: np.concatenate([one[name] for one in parts]) for name in parts[0]}

    every, few = taken(99), taken(6)
    assert every["position"].tolist() == list(range(36))
    chosen = [5, 11, 17, 23, 29, 35]
    assert few["position"].tolist() == chosen
    for name in ("image", "label"):
        np.testing.assert_array_equal(few[name], every[name][chosen])


REFUSED = {
    "int8 of a SavedModel": (
        ["--export_dtype=int8"],
        [
            "int8 is not for --format=serving; choose --export_dtype=float32|bfloat16, or ",
            "--format=tflite.",
        ],
    ),
    "bfloat16 of TensorFlow Lite": (
        ["--format=tflite", "--export_dtype=bfloat16"],
        ["choose --export_dtype=float32|float16|int8, or --format=serving."],
    ),
    "float16 of ONNX": (
        ["--format=onnx", "--export_dtype=float16"],
        ["is not for --format=onnx; choose --export_dtype=float32, or --format="],
    ),
    "bfloat16 of the reference's format": (
        ["--format=official", "--export_dtype=bfloat16"],
        ["is not for --format=official; choose --export_dtype=float32, or "],
    ),
    "an unknown dtype": (["--export_dtype=int4"], ["--export_dtype must be one of float32"]),
    "another mode": (
        ["--mode=eval", "--export_dtype=bfloat16"],
        ["applies only to --mode=export"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_combinations_that_make_no_sense_are_refused(case):
    arguments, words = REFUSED[case]
    code, printed = program("--model_dir=nowhere", *arguments)
    assert code == 2
    assert printed.startswith("error: ") and printed.count("\n") == 1
    assert [word for word in words if word not in printed] == [], printed


def test_onnx_without_its_packages_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(onnx_format, "_PACKAGES", ("tf2onnx_that_is_missing",))
    code, printed = program("--model_dir=nowhere", "--format=onnx")
    assert code == 2
    assert "--format=onnx needs tf2onnx_that_is_missing, the extra [onnx]" in printed
    assert "run pip install '.[onnx]' in the folder of this program" in printed


def test_a_tensorflow_without_a_converter_is_refused(model, tmp_path, monkeypatch):
    monkeypatch.setattr(tf, "lite", types.SimpleNamespace())
    network = converted.Prepared(model, ("features",))
    with pytest.raises(errors.UserError, match=r"has no tf\.lite, which --format=tflite needs"):
        tflite_format.write(str(tmp_path / "file"), network, "float32", None)


def test_a_network_that_cannot_be_converted_is_refused(tmp_path):
    class Sorting(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 2, 2, 3], tf.float32, name="images")])
        def of_prepared(self, images):
            return {"features": tf.linalg.svd(images, compute_uv=False)}

        def signatures(self):
            return {"prepared": self.of_prepared}

    with pytest.raises(errors.UserError) as raised:
        tflite_format.write(str(tmp_path / "file"), Sorting(), "float32", None)
    for words in (
        "TensorFlow Lite cannot have this network in float32 (",
        "try --export_dtype=float16 or int8, or use --format=serving.",
    ):
        assert words in str(raised.value)
    assert list(tmp_path.iterdir()) == []
