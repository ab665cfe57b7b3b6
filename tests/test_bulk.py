"""Bulk extraction without Beam: shards are computed here, one after another, by the same code."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import pathlib
import shutil
import sys

import numpy as np
import pyarrow as pa
from pyarrow import parquet
import pytest
import tensorflow as tf
import test_stored
import tiny_runs
import tiny_scenes

from benchmarks import bulk
from simclr_tf import errors, pixel_format
from simclr_tf.bulk import inputs, plan, program, shards, signature, work
from simclr_tf.data import sources
from simclr_tf.evaluation import features, forward
from simclr_tf.models import simclr
from simclr_tf.serving import export
from simclr_tf.serving import servable as servables

ODD = ("a b.png", "new\nline.png", 'comma,quote".png', "-x=1.png", "[1].png", "grün.png")


@pytest.fixture(scope="module")
def network() -> simclr.SimCLR:
    """A network that was not trained."""
    return simclr.SimCLR(tiny_runs.ARCHITECTURE, seed=3)


@pytest.fixture(scope="module")
def saved_model(network, tmp_path_factory) -> str:
    """Its SavedModel."""
    return export.export(network, str(tmp_path_factory.mktemp("bulk")), 1)


@pytest.fixture(scope="module")
def loaded(saved_model):
    """The SavedModel, which all tests load once."""
    return work.network.Network(saved_model, "image_bytes", ["features", "logits"], 4)


class Workers:
    """Stands for Beam: computes shards in this process.

    Attributes:
        computed: numbers of the shards that were computed.
        flags: the flags of Beam.
        most: computes at most so many shards, and then fails as if it were killed.
    """

    VERSION = "0"

    def __init__(self, loaded) -> None:
        self._loaded = loaded
        self.computed: list[int] = []
        self.flags: list[str] = []
        self.most = sys.maxsize

    def run(self, job, missing, flags) -> None:
        """Computes shards, the last one first."""
        self.flags = list(flags)
        self._loaded._outputs = tuple(job.outputs)
        for number, shard in enumerate(reversed(missing)):
            if number == self.most:
                raise KeyboardInterrupt
            work.write(job, work.compute(job, self._loaded, shard))
            self.computed.append(shard.number)


@pytest.fixture
def workers(loaded, monkeypatch):
    """Computes shards without Beam."""
    standing = Workers(loaded)
    monkeypatch.setattr(program, "_pipeline", lambda: standing)
    monkeypatch.setattr(program.network, "limit_threads", lambda _: None)
    return standing


@pytest.fixture
def folder(photos, tmp_path):
    """A folder of 10 images, 2 that cannot be decoded and a link that leads nowhere."""
    root = tmp_path / "images"
    (root / "below" / "deep").mkdir(parents=True)
    for index, path in enumerate(sorted(photos.glob("train/*/*.png"))[:10]):
        name = ODD[index] if index < len(ODD) else f"below/deep/{index}.png"
        shutil.copy(path, root / name)
    (root / "below" / "text.png").write_text("hello")
    (root / "cut.png").write_bytes((root / "[1].png").read_bytes()[:300])
    (root / "gone.png").symlink_to("nowhere")
    return root


def extract(saved_model, folder, output, *more) -> int:
    """Runs the program."""
    return program.main(
        [
            "bulk",
            f"--saved_model={saved_model}",
            f"--input={folder}/**/*.png",
            f"--output={output}",
            "--shard_size=5",
            "--batch_size=4",
            *more,
        ]
    )


def table_of(output) -> dict[str, list]:
    """Returns the columns of all shards."""
    return parquet.read_table([str(path) for path in sorted(output.glob("*.parquet"))]).to_pydict()


def unreadable_in(output) -> dict[str, str]:
    """Returns the reasons in all CSV files."""
    found = {}
    for path in sorted(output.glob("unreadable-*.csv")):
        with path.open(newline="") as file:
            found |= {row["id"]: row["reason"] for row in csv.DictReader(file)}
    return found


def test_every_image_is_in_the_output_with_its_features_or_a_reason(
    saved_model, folder, tmp_path, workers, loaded, capsys
):
    output = tmp_path / "out"
    assert extract(saved_model, folder, output, "--outputs=features,logits") == 0
    columns, reasons = table_of(output), unreadable_in(output)
    everything = sorted(map(str, folder.rglob("*.png")))
    assert sorted([*columns["id"], *reasons]) == everything
    assert columns["id"] == [name for name in everything if name not in reasons]
    assert {os.path.basename(name) for name in reasons} == {"text.png", "cut.png", "gone.png"}
    assert "is not a JPEG, PNG, GIF or BMP file" in reasons[f"{folder}/below/text.png"]
    assert "cannot be read" in reasons[f"{folder}/gone.png"]
    contents = [pathlib.Path(name).read_bytes() for name in columns["id"]]
    want = loaded._function(image_bytes=tf.constant(contents))
    for name in ("features", "logits"):
        np.testing.assert_allclose(columns[name], want[name], rtol=1e-5, atol=1e-6)
    manifest = tiny_runs.json_of(output / "manifest.json")
    assert manifest["complete"] is True
    assert (manifest["images"], manifest["rows"], manifest["unreadable"]) == (13, 10, 3)
    assert manifest["outputs"] == {"features": 64, "logits": 3}
    assert manifest["num_shards"] == manifest["finished_shards"] == 3
    assert "--shard_size=5" in manifest["command"]
    assert manifest["versions"]["tensorflow"] == tf.__version__
    printed = capsys.readouterr().out
    assert "3 images could not be used" in printed
    assert "features (64), logits (3) of 10 images in 3 shards, 3 unreadable" in printed


def test_features_are_those_of_embed(saved_model, photos, tmp_path, workers, network):
    output = tmp_path / "out"
    assert extract(saved_model, photos / "train", output) == 0
    columns = table_of(output)
    source = sources.open_source("image_folder", data_dir=str(photos), seed=0)
    # What --mode=embed calls.
    found = features.extract(
        forward.Forward(network), source, "train", batch_size=16, progress=None
    )
    names = source.example_names("train")
    want = {f"{photos}/{names[at]}": row for at, row in zip(found.positions, found.features)}
    assert columns["id"] == sorted(want)
    for name, row in zip(columns["id"], columns["features"]):
        np.testing.assert_allclose(row, want[name], rtol=1e-5, atol=1e-6)


def test_an_image_has_the_same_features_wherever_it_is_in_a_shard(
    saved_model, folder, tmp_path, workers
):
    rows = []
    for size in (2, 3, 13):
        output = tmp_path / str(size)
        assert extract(saved_model, folder, output, f"--shard_size={size}") == 0
        columns = table_of(output)
        rows.append(dict(zip(columns["id"], columns["features"])))
    assert rows[0] == rows[1] == rows[2]  # Bit for bit.


def test_the_same_command_computes_only_what_is_missing(
    saved_model, folder, tmp_path, workers, capsys
):
    whole, output = tmp_path / "whole", tmp_path / "out"
    assert extract(saved_model, folder, whole) == 0
    workers.computed.clear()
    workers.most = 1
    assert extract(saved_model, folder, output) == 130
    assert tiny_runs.json_of(output / "manifest.json")["complete"] is False
    assert workers.computed == [2]
    (output / "part-00000-of-00003.parquet.0123.partial").write_bytes(b"half")
    before = (output / "part-00002-of-00003.parquet").stat().st_mtime_ns
    workers.most = sys.maxsize
    assert extract(saved_model, folder, output) == 0
    assert workers.computed == [2, 1, 0]
    assert (output / "part-00002-of-00003.parquet").stat().st_mtime_ns == before
    assert "has 1 of 3 shards, which are kept" in capsys.readouterr().out
    files = tiny_runs.snapshot(whole, ["part-*", "unreadable-*", "inputs.jsonl"])
    assert tiny_runs.snapshot(output, ["part-*", "unreadable-*", "inputs.jsonl"]) == files
    assert extract(saved_model, folder, output) == 0
    assert workers.computed == [2, 1, 0]


def test_damaged_shards_are_computed_again(saved_model, folder, tmp_path, workers, capsys):
    output = tmp_path / "out"
    assert extract(saved_model, folder, output) == 0
    files = tiny_runs.snapshot(output, ["part-*", "unreadable-*"])
    path = output / "part-00001-of-00003.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    listed = sorted(output.glob("unreadable-*"))[-1]
    listed.unlink()
    number = int(listed.name.split("-")[1])
    assert number != 1
    workers.computed.clear()
    assert extract(saved_model, folder, output) == 0
    assert sorted(workers.computed) == sorted([1, number])
    assert "is damaged, so it is computed again" in capsys.readouterr().out
    assert tiny_runs.snapshot(output, ["part-*", "unreadable-*"]) == files


@pytest.fixture
def other_model(saved_model, tmp_path):
    """A SavedModel that differs in one byte of a file."""
    copy = tmp_path / "other"
    shutil.copytree(saved_model, copy)
    path = copy / "variables" / "variables.data-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    return copy


def test_other_models_images_and_outputs_are_refused(
    saved_model, other_model, folder, tmp_path, workers, capsys
):
    output = tmp_path / "out"
    workers.most = 1
    assert extract(saved_model, folder, output) == 130
    before = tiny_runs.snapshot(output)
    moved = shutil.copytree(saved_model, tmp_path / "moved")
    for problem, model, flags in (
        ("the fingerprint of the SavedModel", other_model, ()),
        ("the outputs", saved_model, ("--outputs=logits",)),
        ("--batch_size", saved_model, ("--batch_size=3",)),
        ("this command of 13 in shards of 6", saved_model, ("--shard_size=6",)),
    ):
        assert extract(model, folder, output, *flags) == 2
        message = capsys.readouterr().err
        assert problem in message and "name another --output, or delete that folder" in message
    (folder / "a b.png").rename(folder / "a c.png")
    assert extract(saved_model, folder, output) == 2
    assert "different are the images" in capsys.readouterr().err
    assert tiny_runs.snapshot(output) == before
    (folder / "a c.png").rename(folder / "a b.png")
    workers.most = sys.maxsize
    assert extract(moved, folder, output) == 0  # Where the model is does not matter.
    # A shard of another extraction is refused also where the manifest was lost.
    (output / "manifest.json").unlink()
    assert extract(other_model, folder, output) == 2
    assert "part-00000-of-00003.parquet is of another extraction" in capsys.readouterr().err


def test_a_prepared_data_set_is_extracted_by_its_name(saved_model, tmp_path, workers, loaded):
    data, output = tmp_path / "data", tmp_path / "out"
    name = tiny_scenes.prepare(tiny_scenes.Scenes, data)
    flags = (f"--input=tfds:{name}/test[3:14]", f"--data_dir={data}")
    assert extract(saved_model, "", output, *flags) == 0
    columns = table_of(output)
    source = sources.open_source(name, data_dir=str(data), seed=0)
    assert columns["id"] == source.example_names("test[3:14]")
    assert len(columns["id"]) == 11 and len(list(output.glob("*.parquet"))) == 3
    images = [example["image"].numpy() for example in source.examples("test[3:14]")]
    want = loaded._function(image_bytes=tf.constant(images))["features"]
    np.testing.assert_allclose(columns["features"], want, rtol=1e-5, atol=1e-6)


def test_names_that_are_not_utf_8_are_listed_as_unreadable(saved_model, folder, tmp_path, workers):
    os.rename(folder / "a b.png", os.fsencode(folder) + b"/caf\xe9.png")
    output = tmp_path / "out"
    assert extract(saved_model, folder, output) == 0
    reasons = unreadable_in(output)
    assert "rename it" in reasons[f"{folder}/caf\\xe9.png"]
    assert len(table_of(output)["id"]) == 9


def test_flags_of_beam_are_passed_on_and_misspelt_ones_refused(
    saved_model, folder, tmp_path, workers, capsys
):
    beam = ["--runner=FlinkRunner", "--flink_master=host:1", "--", "--batch_sizes=2"]
    assert extract(saved_model, folder, tmp_path / "out", *beam) == 0
    assert workers.flags == ["--runner=FlinkRunner", "--flink_master=host:1", "--batch_sizes=2"]
    assert extract(saved_model, folder, tmp_path / "out", "--shardsize=2") == 2
    assert "did you mean --shard_size?" in capsys.readouterr().err


def test_without_beam_the_message_says_how_to_install_it(
    saved_model, folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(program.network, "limit_threads", lambda _: None)
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.delitem(sys.modules, "simclr_tf.bulk.pipeline", raising=False)
    assert extract(saved_model, folder, tmp_path / "out") == 2
    assert "pip install 'apache-beam>=2.77'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


REFUSED = {
    "nothing matches": (["--input={folder}/*.jpg"], "matches no files; check it, and quote it"),
    "a folder": (["--input={folder}"], "is a folder: write --input='{folder}/**/*.jpg'"),
    "no split": (["--input=tfds:cifar10"], "as in tfds:cifar10/test"),
    "no model": (["--saved_model={folder}"], "has no saved_model.pb; name a folder such as RUN/"),
    "above the model": (["--saved_model={model}/.."], "name one of the SavedModels in it"),
    "no such output": (
        ["--outputs=feature"],
        "did you mean features?); it returns features",
    ),
    "data_dir": (["--data_dir=/data"], "has no effect"),
    "zero": (["--batch_size=0"], "must be at least 1"),
    "output among the inputs": (["--output={folder}/below"], "matches files in --output"),
    "remote": (
        ["--input=gs://bucket/**/*.jpg"],
        "** is not supported; write one *",
    ),
}


@pytest.mark.parametrize("flags, problem", REFUSED.values(), ids=REFUSED.keys())
def test_refuses(saved_model, folder, tmp_path, workers, capsys, flags, problem):
    names = {"folder": folder, "model": saved_model}
    flags = [flag.format(**names) for flag in flags]
    assert extract(saved_model, folder, tmp_path / "out", *flags) == 2
    assert problem.format(**names) in capsys.readouterr().err


def test_refuses_if_no_image_could_be_used(saved_model, folder, tmp_path, workers, capsys):
    flags = [f"--input={folder}/below/*.png"]
    assert extract(saved_model, folder, tmp_path / "out", *flags) == 2
    assert "None of the 1 image could be used" in capsys.readouterr().err


def test_other_signatures_are_refused(tmp_path):
    other, spec = tf.Module(), tf.TensorSpec([None, 2])
    other.double = tf.function(lambda x: {"x": 2 * x}, input_signature=[spec], autograph=False)
    tf.saved_model.save(other, str(tmp_path / "a"), signatures={"serving_default": other.double})
    with pytest.raises(errors.UserError, match=r"no signature serving_bytes.*serving_default"):
        signature.read(str(tmp_path / "a"))
    tf.saved_model.save(
        other, str(tmp_path / "b"), signatures={"serving_bytes_strict": other.double}
    )
    with pytest.raises(errors.UserError, match="must take one input, encoded images"):
        signature.read(str(tmp_path / "b"))
    (tmp_path / "b" / "saved_model.pb").write_bytes(b"\xff\xff\xff")
    with pytest.raises(errors.UserError, match="is damaged"):
        signature.read(str(tmp_path / "b"))


def test_errors_that_are_not_of_an_image_are_raised(loaded, monkeypatch):
    def fail(**_):
        raise tf.errors.InvalidArgumentError(None, None, "no image is to blame")

    fine = loaded._function
    blank = loaded._blank
    monkeypatch.setattr(
        loaded,
        "_function",
        lambda **given: fail() if len(given["image_bytes"]) > 1 else fine(**given),
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="to blame"):
        loaded.apply([blank, blank])


def test_a_batch_that_is_too_large_is_explained(loaded, monkeypatch):
    def fail(**_):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")

    monkeypatch.setattr(loaded, "_function", fail)
    with pytest.raises(errors.UserError, match=r"4 images does not fit.*smaller --batch_size"):
        loaded.apply([loaded._blank])


def test_a_list_that_changes_while_it_is_used_is_noticed(tmp_path):
    planned = plan.of_contents([plan.Content(("a",)), plan.Content(("b", "c"))])
    planned.write(str(tmp_path))
    assert plan.read(str(tmp_path), planned.shards[1]).ids == ("b", "c")
    (tmp_path / plan.FILE).write_bytes(planned.content.replace(b"c", b"d"))
    with pytest.raises(RuntimeError, match="was changed"):
        plan.read(str(tmp_path), planned.shards[1])


def test_a_data_set_that_changes_is_noticed(monkeypatch, photos):
    source = sources.open_source("image_folder", data_dir=str(photos), seed=0)
    monkeypatch.setattr(inputs, "_open", lambda *_: source)
    names = source.example_names("test[:3]")
    content = plan.Content((*names[:2], "other"), "image_folder", "test[:3]")
    read = inputs.read(content, base="/", data_dir=None)
    assert [next(read).name, next(read).name] == names[:2]
    with pytest.raises(errors.UserError, match="name another --output"):
        next(read)


def test_a_file_that_is_of_something_else_is_not_a_shard(tmp_path):
    path = tmp_path / shards.table_name(0, 1)
    parquet.write_table(pa.table({"x": [1]}), path)
    assert shards.read(str(tmp_path), 0, 1) is None


def test_the_list_of_inputs_is_ascii_and_has_a_shard_on_each_line(folder, tmp_path):
    found = inputs.find(
        f"{folder}/**/*.png", shard_size=5, data_dir=None, output=str(tmp_path / "o")
    )
    planned = plan.of_contents(found)
    lines = [json.loads(line) for line in planned.content.decode("ascii").splitlines()]
    assert [len(line["ids"]) for line in lines] == [5, 5, 3]
    assert [shard.images for shard in planned.shards] == [5, 5, 3]


def test_a_shard_without_images_that_can_be_used_has_columns(tmp_path):
    result = shards.Result(
        0,
        [],
        {"features": np.zeros((0, 4), np.float32)},
        [("a", "why")],
        shards.identity("m", "i", {"features": 4}, 2),
    )
    shards.write(str(tmp_path), 1, result)
    assert parquet.read_table(tmp_path / shards.table_name(0, 1)).column_names == ["id", "features"]
    done = shards.read(str(tmp_path), 0, 1)
    assert (done.rows, done.unreadable) == (0, 1)
    assert done.identity == result.identity


def test_the_benchmark_does_not_count_the_start(tmp_path, monkeypatch):
    saved = tmp_path / "run" / "saved_model" / "1"
    seen = []

    def cpu_seconds(command):
        seen.append(command)
        if "--mode=train_then_eval" in command:
            saved.mkdir(parents=True)
        images = 40 if "/many" in " ".join(command) else 8
        return 10 + 0.5 * images

    monkeypatch.setattr(bulk, "cpu_seconds", cpu_seconds)
    results = bulk.measure(tmp_path, bulk.SMALLEST)
    assert results.keys() == {"embed", "bulk, 1 process", "bulk, 2 processes"}
    for found in results.values():
        assert found == {"images_per_cpu_second": 2.0, "start_cpu_seconds": 10.0}
    assert len(list(tmp_path.glob("many/train/*/*.jpg"))) == 40
    assert bulk.table(results).splitlines()[2] == "| embed | 2.0 | 10.0 |"
    for command in seen:  # The programs know these flags.
        module, flags = command[2], command[3:]
        if module == "simclr_tf.bulk":
            assert program._parsed(flags)[1] == [one for one in flags if "--direct" in one]


@pytest.mark.exhaustive
def test_images_of_other_channels_are_decoded_by_the_savedmodel_or_by_python(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 5000, (5, 12, 12, 4), np.uint16)
    pixels = pixel_format.of_dtype(4, "uint16").scaled((9.0,) * 4, (4000.0,) * 4, "percentile")
    network = simclr.SimCLR(dataclasses.replace(tiny_runs.ARCHITECTURE, pixels=pixels), seed=3)
    saved = export.export(network, str(tmp_path), 1)
    model = work.network.Network(saved, "image_bytes", ["features"], 9)
    pages = [test_stored.tiff(np.moveaxis(image, -1, 0)) for image in images]
    contents = [
        test_stored.npy(images[0]),
        pages[1],
        test_stored.npz(image=images[2]),
        tf.io.encode_png(images[3]).numpy(),
        tf.io.serialize_tensor(images[4]).numpy(),
        None,
        test_stored.tiff(images[0, :, :, 0]),
        pages[1][:60],
        b"nothing",
    ]
    found, reasons = model.apply(contents)
    want = servables.Servable(network).of_whole(tf.constant(images))["features"]
    np.testing.assert_allclose(found["features"][:5], want, rtol=1e-4, atol=1e-5)
    assert sorted(reasons) == [6, 7, 8]
    assert reasons[6] == "The image has 1 channel, and 4 are expected"
    assert reasons[7].startswith("The image is a TIFF image that tifffile cannot read")
    assert "PNG, JPEG or .npy" in reasons[8]


def test_every_batch_has_the_same_size(loaded, monkeypatch):
    sizes, fine = [], loaded._function

    def record(**given):
        sizes.append(len(given["image_bytes"]))
        return fine(**given)

    monkeypatch.setattr(loaded, "_function", record)
    for count in (1, 3, 4):
        found, reasons = loaded.apply([loaded._blank] * count)
        assert {len(values) for values in found.values()} == {count} and not reasons
    assert sizes == [4, 4, 4]
