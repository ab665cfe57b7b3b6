"""The example client, by gRPC and by REST, with a server that fails on request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import pathlib
import re
import socket
import sys
import threading
import types
from typing import Any

import numpy as np
import pytest
import serving_api
import serving_client
import serving_requests
import serving_server
import tensorflow as tf

from simclr_tf.serving import warmup

ROOT = pathlib.Path(__file__).parents[1]
STRICT = "serving_bytes_strict"
REASON = "The image is not a JPEG, PNG, GIF or BMP file"


class Images:
    """A model that can use files unless they begin with "bad".

    Attributes:
        refusals: codes with which the next requests are refused.
        slow: number of the next requests that are answered only when `released` is set.
        requests: number of files of each request.
        pauses: seconds that the client slept.
    """

    name, version = "simclr", 3

    def __init__(self) -> None:
        types = {name: one.as_datatype_enum for name, one in OUTPUTS.items()}
        taken = {"image_bytes": tf.string.as_datatype_enum}
        of_strict = {name: types[name] for name in types if name != "valid"}
        self.signatures = {
            "serving_bytes": serving_requests.signature_def(taken, types),
            STRICT: serving_requests.signature_def(taken, of_strict),
        }
        self.refusals: list[str] = []
        self.slow, self.released = 0, threading.Event()
        self.requests: list[int] = []
        self.pauses: list[float] = []

    def predict(self, signature: str, inputs: Any, outputs: Sequence[str]) -> dict[str, np.ndarray]:
        (files,) = inputs.values()
        self.requests.append(len(files))
        if self.refusals:
            raise serving_requests.Refusal(self.refusals.pop(0), "on request")
        if self.slow:
            self.slow -= 1
            self.released.wait(30)
        valid = np.array([not content.startswith(b"bad") for content in files])
        if signature == STRICT and not valid.all():
            sentence = f"assertion failed: [{REASON}] [[{{{{node Assert}}}}]]"
            raise serving_requests.Refusal("INVALID_ARGUMENT", sentence)
        sizes = np.array([[len(content), content[0]] for content in files], np.float32)
        found = {"features": sizes * valid[:, np.newaxis], "valid": valid}
        return {name: found[name] for name in outputs}


OUTPUTS = {"features": tf.float32, "valid": tf.bool}


@pytest.fixture
def model(monkeypatch) -> Iterator[Images]:
    model = Images()
    monkeypatch.setattr(serving_api, "time", types.SimpleNamespace(sleep=model.pauses.append))
    yield model
    model.released.set()


@pytest.fixture(params=["grpc", "rest"])
def client(request, model, tmp_path) -> Iterator[Any]:
    """A function that runs the client with files of these contents, and returns its exit code."""
    with serving_server.serve(model) as addresses:

        def run(*flags: str, **files: str) -> int:
            for name, content in files.items():
                (tmp_path / f"{name}.jpg").write_text(content)
            paths = [str(tmp_path / f"{name}.jpg") for name in files]
            server = f"--server={getattr(addresses, request.param)}"
            output = f"--output={tmp_path / 'out.npz'}"
            return serving_client.main([*paths, output, f"--api={request.param}", server, *flags])

        yield run


def test_features_are_in_the_order_of_the_files_whatever_the_batches(client, model, tmp_path):
    names = [f"image{number}" for number in range(5)]
    files = {name: "x" * (9 - number) for number, name in enumerate(names)}
    assert client("--batch_size=2", **files) == 0
    assert model.requests == [2, 2, 1]
    with np.load(tmp_path / "out.npz") as got:
        assert set(got) == {"names", "features", "valid"}
        assert [pathlib.Path(name).stem for name in got["names"]] == names
        np.testing.assert_array_equal(got["features"][:, 0], [9, 8, 7, 6, 5])
        assert got["features"].dtype == np.float32
        assert got["valid"].dtype == np.bool_ and got["valid"].all()


def test_bad_images_are_listed_with_the_reason_and_the_others_are_kept(client, tmp_path, capsys):
    out = tmp_path / "out.npy"
    assert client(f"--output={out}", good="abc", poor="bad", fine="abcd") == 1
    np.testing.assert_array_equal(np.load(out)[:, 0], [3, 0, 4])
    printed = capsys.readouterr()
    assert printed.err == f"cannot be used: {tmp_path / 'poor.jpg'}: {REASON}\n"
    assert printed.out == f"{out}: features 3 x 2; 1 of the images cannot be used\n"


def test_a_server_that_does_not_say_why_an_image_is_bad_is_no_error(client, model, capsys):
    del model.signatures[STRICT]
    assert client(poor="bad") == 1
    message = capsys.readouterr().err
    assert "poor.jpg: " in message and f'"{STRICT}" not found' in message


def test_of_many_bad_images_the_first_ones_are_listed(client, capsys):
    assert client(**{f"image{number}": "bad" for number in range(25)}) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 21 and lines[-1] == "cannot be used: 5 more"


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"])
def test_what_may_go_away_is_tried_again_after_growing_pauses(client, model, tmp_path, code):
    model.refusals = 3 * [code]
    assert client(a="abc") == 0
    assert model.requests == 4 * [1]
    for pause, longest in zip(model.pauses, (0.25, 0.5, 1.0), strict=True):
        assert longest / 2 <= pause <= longest
    with np.load(tmp_path / "out.npz") as got:
        np.testing.assert_array_equal(got["features"], [[3, ord("a")]])


def test_a_server_that_never_works_is_given_up(client, model, tmp_path, capsys):
    model.refusals = 99 * ["UNAVAILABLE"]
    assert client("--retries=2", a="abc", b="abc") == 2
    assert len(model.requests) == 3 and len(model.pauses) == 2
    message = capsys.readouterr().err
    assert message.count("trying again in") == 2
    assert "UNAVAILABLE: on request - in the request with" in message
    assert "Start the server" in message and "port 8500" in message
    assert not (tmp_path / "out.npz").exists()


def test_pauses_do_not_grow_for_ever(client, model):
    model.refusals = 9 * ["UNAVAILABLE"]
    assert client("--retries=9", a="abc") == 0
    assert 4 <= model.pauses[-1] <= 8


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "INTERNAL", "UNIMPLEMENTED"])
def test_what_would_fail_again_is_not_tried_again(client, model, code):
    model.refusals = [code]
    assert client(a="abc") == 2
    assert model.requests == [1] and model.pauses == []


def test_a_request_ends_at_its_deadline_and_is_tried_again(client, model):
    model.slow = 1
    assert client("--timeout=1", a="abc") == 0
    assert model.slow == 0 and len(model.pauses) >= 1


def test_a_server_that_is_too_slow_is_given_up(client, model, capsys):
    model.slow = 9
    assert client("--timeout=0.2", "--retries=1", a="abc") == 2
    assert len(model.pauses) == 1
    message = capsys.readouterr().err
    assert "DEADLINE_EXCEEDED" in message and "--batch_size" in message and "--timeout" in message


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model=other"], ["NOT_FOUND", "Latest(other)", "by --model"]),
        (["--signature=other"], [f"Choose one of serving_bytes, {STRICT} by --signature"]),
        ([f"--signature={STRICT}"], [REASON, "a.jpg to ", "--signature=serving_bytes marks"]),
    ],
)
def test_refusals_say_what_to_do(client, model, capsys, flags, words):
    assert client(*flags, a="abc", b="bad") == 2
    message = capsys.readouterr().err
    assert [word for word in words if word not in message] == [], message
    assert model.pauses == []


def test_strict_answers_have_valid_images_only(client, tmp_path):
    assert client(f"--signature={STRICT}", a="abc", b="abcd") == 0
    with np.load(tmp_path / "out.npz") as got:  # It was alone, so REST left out its name.
        np.testing.assert_array_equal(got["features"][:, 0], [3, 4])
        assert got["valid"].all()


def test_progress_is_shown_when_it_takes_long(client, monkeypatch, capsys):
    monkeypatch.setattr(serving_client, "_QUIET_SECONDS", -1.0)
    monkeypatch.setattr(serving_client, "_PROGRESS_SECONDS", -1.0)
    assert client("--batch_size=1", a="abc", b="abc") == 0
    assert capsys.readouterr().err.splitlines()[0].startswith("1 of 2 images, ")


@pytest.mark.parametrize("api", ["grpc", "rest"])
def test_without_a_server_the_message_says_so(api, model, tmp_path, capsys):
    (tmp_path / "a.jpg").write_text("abc")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # Nobody listens.
        server = f"127.0.0.1:{unused.getsockname()[1]}"
        flags = [f"--output={tmp_path / 'a.npy'}", f"--api={api}", f"--server={server}"]
        assert serving_client.main([str(tmp_path / "a.jpg"), "--retries=1", *flags]) == 2
    message = capsys.readouterr().err
    assert f"error: {server}, model 'simclr': UNAVAILABLE: " in message
    assert "refused" in message and "Start the server" in message
    assert len(model.pauses) == 1


def test_a_model_without_features_has_a_npz_file_only(client, model, tmp_path, capsys):
    types = {"embedding": tf.float32.as_datatype_enum, "valid": tf.bool.as_datatype_enum}
    taken = {"image_bytes": tf.string.as_datatype_enum}
    model.signatures = {"serving_bytes": serving_requests.signature_def(taken, types)}
    model.predict = lambda *_: {"embedding": np.zeros((1, 2), "f"), "valid": np.array([True])}
    assert client(f"--output={tmp_path / 'out.npy'}", a="abc") == 2
    message = capsys.readouterr().err
    assert "embedding" in message and "Write to a .npz file" in message
    assert client(a="abc") == 0
    with np.load(tmp_path / "out.npz") as got:
        assert got["embedding"].shape == (1, 2)


def test_folders_give_their_files_but_hidden_ones(tmp_path):
    for name in ("b/2.jpg", "b/.cache/3.jpg", "b/c/1.png", ".DS_Store"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = serving_client.image_files([tmp_path / "b" / "c" / "1.png", tmp_path])
    assert [path.name for path in found] == ["1.png", "2.jpg", "1.png"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.jpg", "--output=a.csv"], "must end in .npy or .npz"),
        (["a.jpg", "--output=none/a.npy"], "in a folder that does not exist"),
        (["a.jpg", "--output=a.npy"], "there is no file a.jpg"),
        ([".", "--output=a.npy"], "the folders have no files"),
        ([".", "--output=a.npy", "--batch_size=0"], "must be positive"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        serving_client.main(arguments)
    assert words in capsys.readouterr().err


def test_the_settings_of_the_example_server_fit_together_and_to_the_client(tmp_path):
    settings = (ROOT / "examples" / "batching.config").read_text()
    largest = int(re.search(r"^max_batch_size \{ value: (\d+) \}$", settings, re.MULTILINE)[1])
    allowed = [*map(int, re.findall(r"^allowed_batch_sizes: (\d+)$", settings, re.MULTILINE))]
    assert allowed == sorted(set(allowed)) and allowed[-1] == largest
    assert set(warmup.BATCH_SIZES) <= set(allowed)
    (tmp_path / "a.jpg").touch()
    defaults = serving_client.parse([str(tmp_path / "a.jpg"), f"--output={tmp_path / 'a.npy'}"])
    assert defaults.batch_size in allowed
    assert "./batching.config:" in (ROOT / "examples" / "docker-compose.yml").read_text()


def test_without_the_classes_of_grpc_the_message_names_the_package(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    (tmp_path / "a.jpg").touch()
    arguments = [str(tmp_path / "a.jpg"), f"--output={tmp_path / 'a.npy'}"]
    assert serving_client.main(arguments) == 2
    assert "pip install tensorflow-serving-api, or --api=rest" in capsys.readouterr().err
