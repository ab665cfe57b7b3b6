"""The JSON of TensorFlow Serving's REST addresses, for the stand-in `serving_server`.

The rules are those of https://www.tensorflow.org/tfx/serving/api_rest: rows ("instances", answered
as "predictions") and columns ("inputs", answered as "outputs"). An input that is the only one may
come without its name, and an output that is the only one does. Strings may be {"b64": ...}, and
are in answers if the name of the output ends in _bytes.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
import json
import re
from typing import Any

from google.protobuf import json_format
import numpy as np
import serving_requests
import tensorflow as tf

_PREDICT = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+))?:predict")
_DESCRIBE = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+))?(/metadata)?")
_HTTP = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


def answer(
    model: serving_requests.Model, method: str, path: str, body: bytes
) -> tuple[int, dict[str, Any]]:
    """Returns the status of HTTP and the JSON for a request to a model."""
    try:
        predict, describe = _PREDICT.fullmatch(path), _DESCRIBE.fullmatch(path)
        if method == "POST" and predict:
            return 200, _predict(model, *_asked(predict), body)
        if method == "GET" and describe:
            return 200, _described(model, *_asked(describe), metadata=bool(describe[3]))
        raise _refused(f"Malformed request: {method} {path}")
    except serving_requests.Refusal as refusal:
        return _HTTP.get(refusal.code, 500), {"error": str(refusal)}


def _asked(match: re.Match) -> tuple[str, int | None]:
    return match[1], int(match[2]) if match[2] else None


def _refused(message: str) -> serving_requests.Refusal:
    return serving_requests.Refusal("INVALID_ARGUMENT", message)


def _described(
    model: serving_requests.Model, name: str, version: int | None, *, metadata: bool
) -> dict[str, Any]:
    """Returns the signatures of a model, or its state."""
    serving_requests.find(model, name, version)
    if not metadata:
        status = {"error_code": "OK", "error_message": ""}
        state = {"version": str(model.version), "state": "AVAILABLE", "status": status}
        return {"model_version_status": [state]}
    signatures = json_format.MessageToDict(
        serving_requests.signature_map(model), preserving_proto_field_name=True
    )
    spec = {"name": model.name, "signature_name": "", "version": str(model.version)}
    return {"model_spec": spec, "metadata": {"signature_def": signatures}}


def _predict(
    model: serving_requests.Model, name: str, version: int | None, body: bytes
) -> dict[str, Any]:
    request = _parsed(body)
    signature = request.get("signature_name", serving_requests.DEFAULT_SIGNATURE)
    serving_requests.find(model, name, version)
    if signature not in model.signatures:
        raise _refused(f'Serving signature name: "{signature}" not found in signature def')
    taken = model.signatures[signature].inputs
    dtypes = {name: tf.dtypes.as_dtype(info.dtype) for name, info in taken.items()}
    given = [key for key in ("instances", "inputs") if key in request]
    if not given:
        raise _refused("Missing 'inputs' or 'instances' key")
    if len(given) > 1:
        raise _refused("Not formatted correctly expecting only one of 'inputs' or 'instances'")
    by_row = given == ["instances"]
    inputs = (_of_rows if by_row else _of_columns)(request[given[0]], dtypes)
    outputs = serving_requests.run(model, name, version, signature, inputs)
    return {"predictions": _as_rows(outputs)} if by_row else {"outputs": _as_columns(outputs)}


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        request = json.loads(body)
    except ValueError as error:
        raise _refused(f"JSON Parse error: {error}") from error
    if not isinstance(request, dict):
        raise _refused("JSON Value: Is not object")
    return request


def _of_rows(rows: Any, dtypes: Mapping[str, tf.DType]) -> dict[str, np.ndarray]:
    """Returns the inputs in a list of rows, each an object, or the value of the only input."""
    if not isinstance(rows, list) or not rows:
        raise _refused("Excepting 'instances' to be an list/array with values")
    named = _is_object(rows[0])
    if not named and len(dtypes) > 1:
        raise _refused("instances is a plain list, but expecting list of objects")
    found: dict[str, list[np.ndarray]] = {name: [] for name in dtypes}
    for number, row in enumerate(rows):
        if _is_object(row) != named:
            raise _refused(f"Expecting {'object' if named else 'value/list'} at item {number}")
        row = row if named else dict.fromkeys(dtypes, row)
        if row.keys() != dtypes.keys():
            raise _refused(
                f"Failed to process element: {number} of 'instances' list. JSON object keys must "
                f"be equal to: {','.join(sorted(dtypes))}"
            )
        for name, dtype in dtypes.items():
            found[name].append(_tensor(row[name], dtype))
            if found[name][0].shape != found[name][-1].shape:
                raise _refused(f"Expecting shape {found[name][0].shape} at item {number}")
    return {name: np.stack(values) for name, values in found.items()}


def _of_columns(columns: Any, dtypes: Mapping[str, tf.DType]) -> dict[str, np.ndarray]:
    """Returns the inputs in an object, or in the value of the only input."""
    if not _is_object(columns):
        if len(dtypes) > 1:
            raise _refused("inputs is a plain value/list, but expecting an object")
        columns = dict.fromkeys(dtypes, columns)
    for name in dtypes:
        if name not in columns:
            raise _refused(f"Missing named input: {name} in 'inputs' object.")
    return {name: _tensor(columns[name], dtype) for name, dtype in dtypes.items()}


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() != {"b64"}


def _tensor(value: Any, dtype: tf.DType) -> np.ndarray:
    """Returns nested lists as an array."""

    def leaf(one: Any) -> Any:
        if dtype == tf.string:
            return _string(one)
        allowed = bool if dtype == tf.bool else (int, float) if dtype.is_floating else int
        if not isinstance(one, allowed) or isinstance(one, bool) != (dtype == tf.bool):
            raise _refused(f"JSON Value: {one} is not of expected type: {dtype.name}")
        return one

    try:
        return np.array(_mapped(leaf, value), dtype.as_numpy_dtype)
    except (ValueError, OverflowError) as error:  # Lists of different lengths.
        raise _refused(f"Encountered list at unexpected size: {error}") from error


def _string(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if not isinstance(value, dict) or not isinstance(value.get("b64"), str):
        raise _refused(f"JSON Value: {value} not formatted correctly for base64 data")
    try:
        return base64.b64decode(value["b64"], validate=True)
    except binascii.Error as error:
        raise _refused("Unable to base64 decode") from error


def _as_rows(outputs: Mapping[str, np.ndarray]) -> list[Any]:
    """Returns objects with all outputs, or the values of the only output."""
    if len({len(values) if values.ndim else None for values in outputs.values()}) != 1:
        raise _refused("Tensor name: an output has inconsistent batch size")
    plain = {name: _plain(name, values) for name, values in outputs.items()}
    if len(plain) == 1:
        return next(iter(plain.values()))
    return [dict(zip(plain, row)) for row in zip(*plain.values())]


def _as_columns(outputs: Mapping[str, np.ndarray]) -> Any:
    plain = {name: _plain(name, values) for name, values in outputs.items()}
    return plain if len(plain) > 1 else next(iter(plain.values()))


def _plain(name: str, values: np.ndarray) -> Any:
    """Returns an output as nested lists."""

    def leaf(one: Any) -> Any:
        if not isinstance(one, bytes):
            return one
        if name.endswith("_bytes"):
            return {"b64": base64.b64encode(one).decode()}
        return one.decode()

    return _mapped(leaf, values.tolist())


def _mapped(leaf: Callable[[Any], Any], value: Any) -> Any:
    """Applies a function to what is not a list."""
    return [_mapped(leaf, one) for one in value] if isinstance(value, list) else leaf(value)
