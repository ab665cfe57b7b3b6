"""The stand-in for TensorFlow Serving follows the rules of its documentation."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import serving_requests
import serving_rest
import tensorflow as tf

FLOAT, INT, STRING, BOOL = (
    one.as_datatype_enum for one in (tf.float32, tf.int32, tf.string, tf.bool)
)


class Echo:
    """A model that returns what it is given, under other names."""

    name, version = "simclr", 7

    def __init__(self, outputs: dict[str, str], **inputs: int) -> None:
        """Takes the input that each output returns, and the dtypes of the inputs."""
        self._outputs = outputs
        dtypes = {name: inputs[of] for name, of in outputs.items()}
        self.signatures = {"serving_default": serving_requests.signature_def(inputs, dtypes)}

    def predict(self, signature: str, inputs: Any, outputs: Any) -> dict[str, np.ndarray]:
        return {name: inputs[self._outputs[name]] for name in outputs}


ONE = Echo({"y": "x"}, x=FLOAT)
TWO = Echo({"a": "x", "b": "n"}, x=FLOAT, n=INT)
TEXT = Echo({"text": "s", "text_bytes": "s"}, s=STRING)
FLAG = Echo({"valid": "flag"}, flag=BOOL)


def ask(model: Any, request: Any, path: str = "/v1/models/simclr:predict") -> tuple[int, Any]:
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    return serving_rest.answer(model, "POST", path, body)


ANSWERS: dict[str, tuple[Any, Any, Any]] = {
    "rows of one output are plain": (
        ONE,
        {"instances": [[1.0, 2.0], [3, 4]]},
        {"predictions": [[1.0, 2.0], [3.0, 4.0]]},
    ),
    "rows of single numbers": (ONE, {"instances": [1.5]}, {"predictions": [1.5]}),
    "rows with a name": (ONE, {"instances": [{"x": [1.5]}]}, {"predictions": [[1.5]]}),
    "rows of two outputs are objects": (
        TWO,
        {"instances": [{"x": [1.5], "n": 2}, {"x": [2.5], "n": 3}]},
        {"predictions": [{"a": [1.5], "b": 2}, {"a": [2.5], "b": 3}]},
    ),
    "a column of one output is plain": (
        ONE,
        {"inputs": [[1.0], [2.0]]},
        {"outputs": [[1.0], [2.0]]},
    ),
    "a column with a name": (ONE, {"inputs": {"x": [1.5]}}, {"outputs": [1.5]}),
    "an empty column": (ONE, {"inputs": []}, {"outputs": []}),
    "columns of two outputs are an object": (
        TWO,
        {"inputs": {"x": [[1.5], [2.5]], "n": [2, 3]}},
        {"outputs": {"a": [[1.5], [2.5]], "b": [2, 3]}},
    ),
    "bytes come in base64, and leave so by the names of outputs": (
        TEXT,
        {"instances": [{"b64": "YWJj"}, "abc"]},
        {"predictions": 2 * [{"text": "abc", "text_bytes": {"b64": "YWJj"}}]},
    ),
    "a column of bytes": (
        TEXT,
        {"inputs": {"s": [{"b64": "YWJj"}]}},
        {"outputs": {"text": ["abc"], "text_bytes": [{"b64": "YWJj"}]}},
    ),
    "truth": (FLAG, {"instances": [True, False]}, {"predictions": [True, False]}),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_requests_are_answered_in_their_own_form(case):
    model, request, answer = ANSWERS[case]
    assert ask(model, request) == (200, answer)


def test_numbers_that_are_none_are_written_as_the_server_writes_them():
    _, answer = ask(ONE, b'{"instances": [NaN, Infinity]}')
    assert json.dumps(answer) == '{"predictions": [NaN, Infinity]}'


REFUSED: dict[str, tuple[Any, Any, str]] = {
    "no JSON": (ONE, b"{", "JSON Parse error"),
    "a list": (ONE, b"[]", "Is not object"),
    "no key": (ONE, {"signature_name": "serving_default"}, "Missing 'inputs' or 'instances' key"),
    "both keys": (ONE, {"instances": [1.0], "inputs": [1.0]}, "expecting only one of"),
    "no list": (ONE, {"instances": 1.0}, "to be an list/array"),
    "no rows": (ONE, {"instances": []}, "with values"),
    "rows without names": (TWO, {"instances": [1.0]}, "expecting list of objects"),
    "a column without a name": (TWO, {"inputs": [1.0]}, "expecting an object"),
    "a missing input": (TWO, {"instances": [{"x": 1.0}]}, "keys must be equal to: n,x"),
    "another input": (ONE, {"instances": [{"x": 1.0, "z": 1.0}]}, "keys must be equal to: x"),
    "a missing column": (TWO, {"inputs": {"x": [1.0]}}, "Missing named input: n"),
    "unlike rows": (ONE, {"instances": [1.0, {"x": 1.0}]}, "Expecting value/list at item 1"),
    "rows of other shapes": (ONE, {"instances": [[1.0], [1.0, 2.0]]}, "Expecting shape"),
    "ragged lists": (ONE, {"inputs": [[1.0], [1.0, 2.0]]}, "list at unexpected size"),
    "text for a number": (ONE, {"instances": ["1"]}, "not of expected type: float32"),
    "a fraction for a whole number": (TWO, {"inputs": {"x": [1], "n": [1.5]}}, "type: int32"),
    "truth for a number": (ONE, {"instances": [True]}, "not of expected type: float32"),
    "a number for text": (TEXT, {"instances": [1]}, "not formatted correctly for base64"),
    "no base64": (TEXT, {"instances": [{"b64": "?"}]}, "Unable to base64 decode"),
    "another signature": (
        ONE,
        {"signature_name": "other", "instances": [1.0]},
        'Serving signature name: "other" not found in signature def',
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_requests_that_break_a_rule_are_refused(case):
    model, request, sentence = REFUSED[case]
    status, answer = ask(model, request)
    assert status == 400 and answer.keys() == {"error"}
    assert sentence in answer["error"]


def test_rows_need_outputs_of_one_size(monkeypatch):
    model = Echo({"a": "x", "b": "n"}, x=FLOAT, n=INT)
    request = {"x": [1.0, 2.0], "n": [1]}
    assert ask(model, {"inputs": request})[0] == 200
    unlike = {"a": np.zeros(2), "b": np.zeros(1)}
    monkeypatch.setattr(model, "predict", lambda *_: unlike)
    status, answer = ask(model, {"instances": [{"x": 1.0, "n": 1}]})
    assert (status, "inconsistent batch size" in answer["error"]) == (400, True)


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        ("/v1/models/simclr/versions/7:predict", 200, None),
        ("/v1/models/simclr/versions/8:predict", 404, "Specific(simclr, 8)"),
        ("/v1/models/other:predict", 404, "Servable not found for request: Latest(other)"),
        ("/v1/simclr:predict", 400, "Malformed request: POST /v1/simclr:predict"),
        ("/v1/models/simclr", 400, "Malformed request"),
    ],
)
def test_addresses_name_a_model_and_a_version(path, status, sentence):
    got, answer = ask(ONE, {"instances": [1.0]}, path)
    assert got == status
    assert sentence is None or sentence in answer["error"]


def test_the_state_and_the_signatures_of_a_model_are_described():
    status, answer = serving_rest.answer(ONE, "GET", "/v1/models/simclr", b"")
    assert status == 200
    (state,) = answer["model_version_status"]
    assert (state["version"], state["state"]) == ("7", "AVAILABLE")
    status, answer = serving_rest.answer(ONE, "GET", "/v1/models/simclr/metadata", b"")
    assert (status, answer["model_spec"]["version"]) == (200, "7")
    signature = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["x"]["dtype"] == signature["outputs"]["y"]["dtype"] == "DT_FLOAT"
    assert serving_rest.answer(ONE, "GET", "/v1/models/other/metadata", b"")[0] == 404
