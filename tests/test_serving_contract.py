"""What clients of a SavedModel rely on, through real sockets: forms, codes, values and patience.

The server is the stand-in of `serving_server`, in a process of its own.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from concurrent import futures
import json
import os
import pathlib
import subprocess
from typing import Any
import urllib.error
import urllib.request

import grpc
import numpy as np
import psutil
import pytest
import serving_api
import serving_server
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
import tiny_runs

from benchmarks import mutated_images
from simclr_tf.data import crops, decode
from simclr_tf.models import simclr
from simclr_tf.serving import export

ROOT = pathlib.Path(__file__).parents[1]
SIZE = tiny_runs.ARCHITECTURE.image_size
# Batches of other sizes are computed in another order, so the last digits of a row differ.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}
MIB = 2**20
SECONDS = 600  # For a request, on a machine that does much else.


def image(seed: int, kind: str = "png") -> bytes:
    shape = (20 + seed, 40 - seed, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    encode = tf.io.encode_png if kind == "png" else tf.io.encode_jpeg
    return encode(pixels).numpy()


GOOD = [image(seed, ("png", "jpeg")[seed % 2]) for seed in range(8)]
BAD = [b"", b"a letter", GOOD[0][:40], GOOD[1][:-200]]


@pytest.fixture(scope="module")
def model() -> simclr.SimCLR:
    return simclr.SimCLR(tiny_runs.ARCHITECTURE, seed=3)


@pytest.fixture(scope="module")
def server(model, python, tmp_path_factory) -> Iterator[serving_server.Addresses]:
    """A process that serves one export to all tests of this file, and survives them."""
    folder = pathlib.Path(export.export(model, str(tmp_path_factory.mktemp("run")), 7))
    with serving_server.start(python, folder.parent) as addresses:
        yield addresses


@pytest.fixture(scope="module", params=[serving_api.GrpcClient, serving_api.RestClient])
def client(request, server) -> Any:
    address = server.grpc if request.param is serving_api.GrpcClient else server.rest
    return request.param(address, "simclr", timeout=SECONDS)


@pytest.fixture(scope="module")
def by_grpc(server) -> serving_api.GrpcClient:
    return serving_api.GrpcClient(server.grpc, "simclr", timeout=SECONDS)


@pytest.fixture(scope="module")
def stub(server) -> Iterator[Any]:
    with grpc.insecure_channel(server.grpc) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def ask(server) -> Callable[..., tuple[int, Any]]:
    """A function that sends JSON to a path of the model, and returns the status and the answer."""

    def send(path: str, content: Any = None) -> tuple[int, Any]:
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(f"http://{server.rest}/v1/models/{path}", body)
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    return send


def b64(content: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(content).decode()}


@pytest.mark.parametrize("api", ["grpc", "rest"])
def test_the_example_writes_the_features_of_the_network(api, server, model, python, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, content in enumerate([*GOOD[:3], b"a letter"]):
        (folder / f"{number}.img").write_bytes(content)
    command = [python, "examples/serving_client.py", str(folder), "--output", tmp_path / "out.npz"]
    flags = [
        f"--api={api}",
        f"--server={getattr(server, api)}",
        "--batch_size=3",
        f"--timeout={SECONDS}",
    ]
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(
        [*command, *flags], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    reason = "The image is not a JPEG, PNG, GIF or BMP file"
    assert f"cannot be used: {folder}/3.img: {reason}" in done.stderr
    with np.load(tmp_path / "out.npz") as got:
        assert [pathlib.Path(name).name for name in got["names"]] == [f"{n}.img" for n in range(4)]
        np.testing.assert_array_equal(got["valid"], [True, True, True, False])
        assert not got["features"][3].any() and not got["logits"][3].any()
        images = [crops.evaluation_image(decode.decode_image(one), SIZE) for one in GOOD[:3]]
        want = model(tf.stack(images))
        for name in ("features", "logits"):
            np.testing.assert_allclose(got[name][:3], want[name], rtol=1e-4, atol=1e-5)


def test_rows_and_columns_have_the_same_values(ask, by_grpc):
    want = by_grpc.predict("serving_bytes", [GOOD[0], BAD[1]])
    files = [b64(GOOD[0]), b64(BAD[1])]
    path, name = "simclr:predict", {"signature_name": "serving_bytes"}
    asked: dict[str, Any] = {
        "rows with names": {"instances": [{"image_bytes": one} for one in files]},
        "rows": {"instances": files},
        "columns with names": {"inputs": {"image_bytes": files}},
        "columns": {"inputs": files},
    }
    for form, request in asked.items():
        status, answer = ask(path, {**name, **request})
        if form.startswith("rows"):
            rows = answer["predictions"]
            assert status == 200 and all(row.keys() == want.keys() for row in rows)
            columns = {key: [row[key] for row in rows] for key in want}
        else:
            columns = answer["outputs"]
        assert columns.keys() == want.keys()
        for key in want:
            np.testing.assert_allclose(columns[key], want[key], **CLOSE)


@pytest.mark.parametrize("name", ["prepared", "serving_default", "serving_uint8"])
def test_pixels_are_taken_as_json(ask, name):
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3))
    values = pixels.tolist() if name == "serving_uint8" else (pixels / 255).tolist()
    given = {} if name == "serving_default" else {"signature_name": name}
    status, answer = ask("simclr:predict", {**given, "instances": values})
    assert status == 200
    rows = answer["predictions"]
    assert [{key: len(row[key]) for key in row} for row in rows] == 2 * [
        {"features": 64, "logits": 3}
    ]
    _, of_integers = ask(
        "simclr:predict", {"signature_name": "serving_uint8", "inputs": pixels.tolist()}
    )
    want = of_integers["outputs"]["features"]
    np.testing.assert_allclose([row["features"] for row in rows], want, rtol=1e-4, atol=1e-5)


def test_a_row_is_the_same_alone_among_others_and_padded(client):
    """Servers put requests into one batch, and fill it up to a size with copies of a row.

    Bit for bit in batches of one size, whatever the other rows are. In batches of other sizes, the
    last digits differ, because sums are computed in another order.
    """
    eight = client.predict("serving_bytes", GOOD)
    padded = client.predict("serving_bytes", GOOD + 8 * GOOD[:1])
    others = client.predict("serving_bytes", GOOD + 2 * BAD)
    alone = [client.predict("serving_bytes", [content]) for content in GOOD]
    for name, values in eight.items():
        np.testing.assert_array_equal(padded[name][:8], others[name][:8])
        np.testing.assert_allclose(padded[name][:8], values, **CLOSE)
        np.testing.assert_allclose(np.concatenate([one[name] for one in alone]), values, **CLOSE)


def test_bad_images_are_marked_wherever_they_are(client):
    want = client.predict("serving_bytes", GOOD[:4])
    files = [BAD[0], GOOD[0], GOOD[1], BAD[1], BAD[2], GOOD[2], GOOD[3], BAD[3]]
    got = client.predict("serving_bytes", files)
    valid = np.array([False, True, True, False, False, True, True, False])
    np.testing.assert_array_equal(got["valid"], valid)
    for name in ("features", "logits"):
        assert not got[name][~valid].any()
        np.testing.assert_allclose(got[name][valid], want[name], **CLOSE)


@pytest.mark.parametrize("count", [100, pytest.param(2000, marks=pytest.mark.exhaustive)])
def test_many_clients_get_the_answers_to_their_own_images(server, by_grpc, count):
    files = GOOD + BAD
    want = by_grpc.predict("serving_bytes", files)
    clients = (by_grpc, serving_api.RestClient(server.rest, "simclr", timeout=SECONDS))

    def request(number: int) -> None:
        rng = np.random.default_rng(number)
        chosen = rng.integers(len(files), size=rng.integers(1, 6))
        got = clients[number % 2].predict("serving_bytes", [files[index] for index in chosen])
        np.testing.assert_array_equal(got["valid"], chosen < len(GOOD))
        np.testing.assert_allclose(got["features"], want["features"][chosen], **CLOSE)

    process = psutil.Process(server.pid)
    with futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(request, range(count // 4)))
        warm = process.memory_info().rss
        list(pool.map(request, range(count // 4, count)))
    growth = process.memory_info().rss - warm
    assert growth < 50 * MIB, f"the memory of the server grew by {growth / MIB:.0f} MiB"


@pytest.mark.parametrize("count", [200, pytest.param(5000, marks=pytest.mark.exhaustive)])
def test_damaged_images_are_answered(by_grpc, count):
    """That is, without an error or a crash: `benchmarks/fuzz_images.py` looks at the reasons."""
    intact = mutated_images.originals()
    before = by_grpc.predict("serving_bytes", GOOD)
    share = 0
    for start in range(0, count, 50):
        damaged = [mutated_images.mutated(intact, 1, start + number) for number in range(50)]
        got = by_grpc.predict("serving_bytes", damaged)
        assert np.isfinite(got["features"]).all() and not got["features"][~got["valid"]].any()
        share += got["valid"].sum() / count
    assert 0.05 < share < 0.95
    after = by_grpc.predict("serving_bytes", GOOD)
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values)


REFUSED: dict[str, tuple[dict[str, Any], Any, str, str]] = {
    "another model": ({"name": "birds"}, GOOD[:1], "NOT_FOUND", "Latest(birds)"),
    "another version": ({"version": 8}, GOOD[:1], "NOT_FOUND", "Specific(simclr, 8)"),
    "another signature": ({"signature": "serve"}, GOOD[:1], "FAILED_PRECONDITION", '"serve" not'),
    "the input of another signature": (
        {"signature": "prepared"},
        GOOD[:1],
        "INVALID_ARGUMENT",
        "alias not found in signature: image_bytes",
    ),
    "numbers for bytes": ({}, np.zeros(2, np.float32), "INVALID_ARGUMENT", "to be string"),
    "a bad image": (
        {"signature": "serving_bytes_strict"},
        [GOOD[0], BAD[1]],
        "INVALID_ARGUMENT",
        "The image is not a JPEG, PNG, GIF or BMP file",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_answered_has_the_code_of_tensorflow_serving(stub, case):
    spec, values, code, sentence = REFUSED[case]
    request = predict_pb2.PredictRequest()
    request.model_spec.name = spec.get("name", "simclr")
    request.model_spec.signature_name = spec.get("signature", "serving_bytes")
    if "version" in spec:
        request.model_spec.version.value = spec["version"]
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(values))
    with pytest.raises(grpc.RpcError) as raised:
        stub.Predict(request, timeout=SECONDS)
    assert raised.value.code().name == code
    assert sentence in raised.value.details()


def test_only_the_outputs_that_are_asked_for_are_sent(stub):
    request = predict_pb2.PredictRequest(output_filter=["features"])
    request.model_spec.name, request.model_spec.version.value = "simclr", 7
    request.model_spec.signature_name = "serving_bytes"
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(GOOD[:2]))
    response = stub.Predict(request, timeout=SECONDS)
    assert set(response.outputs) == {"features"}
    assert (response.model_spec.version.value, response.model_spec.name) == (7, "simclr")


def test_the_signatures_are_described(client, ask):
    names = ["serving_bytes", "serving_bytes_strict", "serving_default", "serving_uint8"]
    assert client.signatures() == ["prepared", *names]
    _, answer = ask("simclr/metadata")
    described = answer["metadata"]["signature_def"]["signature_def"]["serving_bytes"]
    taken = described["inputs"]["image_bytes"]
    assert (taken["dtype"], taken["tensor_shape"]["dim"]) == ("DT_STRING", [{"size": "-1"}])
    assert set(described["outputs"]) == {"features", "logits", "valid"}


def test_errors_of_the_graph_are_refusals_in_json(ask):
    status, answer = ask(
        "simclr:predict", {"signature_name": "serving_bytes_strict", "inputs": [b64(BAD[1])]}
    )
    assert status == 400 and "The image is not a JPEG" in answer["error"]
    status, answer = ask("simclr:predict", {"instances": [[[[255, 0, 0]]]]})
    assert status == 400 and "divide values from 0 to 255 by 255" in answer["error"]
    status, answer = ask("simclr")
    assert (status, answer["model_version_status"][0]["version"]) == (200, "7")
