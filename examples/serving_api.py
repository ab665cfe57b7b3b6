"""Clients of a model server, by gRPC and by REST, and what they retry.

The server is TensorFlow Serving with a SavedModel of this project, whose signatures serving_bytes
and serving_bytes_strict take the contents of image files. This module depends on nothing of the
project. It needs NumPy. REST needs nothing else. gRPC also needs the package
tensorflow-serving-api, whose classes import TensorFlow: that takes seconds and some hundred MB.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
import http.client
import json
import random
import re
import sys
import time
from typing import Any, TypeVar
import urllib.error
import urllib.request

import numpy as np

Outputs = dict[str, np.ndarray]
_Result = TypeVar("_Result")
INPUT = "image_bytes"  # Of both signatures.
# What may go away by itself. Everything else would fail again.
_RETRIED = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")
# The codes of gRPC that a server turns into these codes of HTTP.
_OF_HTTP = {
    400: "INVALID_ARGUMENT",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 8.0  # Seconds between attempts.
# Of the fields of a TensorProto: field and type, by the number of its dtype.
_FIELDS = {
    1: ("float_val", np.float32),
    2: ("double_val", np.float64),
    3: ("int_val", np.int32),
    9: ("int64_val", np.int64),
    10: ("bool_val", np.bool_),
}


class RequestError(Exception):
    """A request that failed.

    Attributes:
        code: name of the status code of gRPC.
        detail: what the server or the network says.
    """

    def __init__(self, code: str, detail: str) -> None:
        """Takes the code and the detail."""
        self.code, self.detail = code, _readable(detail)
        super().__init__(f"{code}: {self.detail}")


def _readable(detail: str) -> str:
    """Returns a message of TensorFlow without the names of its operations."""
    plain = " ".join("".join(one if one.isprintable() else " " for one in detail).split())
    plain = re.sub(r"^.*(Graph execution error:|with iterator: \S+) | \[\[.*$", "", plain)
    asserted = re.match(r"assertion failed: (\[.*\])", plain)
    return " ".join(re.findall(r"\[(.*?)\]", asserted[1])) if asserted else plain


class GrpcClient:
    """Asks a server by gRPC. Several threads may use it at a time."""

    def __init__(self, server: str, model: str, timeout: float) -> None:
        """Connects when it is used.

        Args:
            server: HOST:PORT.
            model: name of the model.
            timeout: seconds for a request.
        """
        import grpc
        from tensorflow_serving.apis import (
            get_model_metadata_pb2,
            predict_pb2,
            prediction_service_pb2_grpc,
        )

        self._grpc, self._predict, self._metadata = grpc, predict_pb2, get_model_metadata_pb2
        options = [("grpc.max_receive_message_length", -1)]  # By default 4 MiB.
        channel = grpc.insecure_channel(server, options)  # Beyond your network: secure_channel.
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self._model, self._timeout = model, timeout

    def predict(self, signature: str, files: Sequence[bytes]) -> Outputs:
        """Returns the outputs of a signature for the contents of image files, by name."""
        request = self._predict.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = self._model, signature
        tensor = request.inputs[INPUT]
        tensor.dtype = 7  # DT_STRING.
        tensor.tensor_shape.dim.add().size = len(files)
        tensor.string_val.extend(files)
        response = self._call(self._stub.Predict, request)
        return {name: _array(tensor) for name, tensor in response.outputs.items()}

    def signatures(self) -> list[str]:
        """Returns the names of the signatures of the model."""
        request = self._metadata.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = self._model
        response = self._call(self._stub.GetModelMetadata, request)
        found = self._metadata.SignatureDefMap()
        response.metadata["signature_def"].Unpack(found)
        return _predicting(found.signature_def)

    def _call(self, method: Callable[..., Any], request: Any) -> Any:
        try:
            return method(request, timeout=self._timeout)
        except self._grpc.RpcError as error:
            raise RequestError(error.code().name, error.details() or "") from error


def _array(tensor: Any) -> np.ndarray:
    """Returns a TensorProto as an array."""
    field, dtype = _FIELDS[tensor.dtype]
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, dtype).reshape(shape)
    values = np.array(getattr(tensor, field), dtype)
    missing = int(np.prod(shape)) - len(values)  # Equal values at the end may be left out.
    return np.pad(values, (0, missing), "edge" if len(values) else "constant").reshape(shape)


def _predicting(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if not name.startswith("__"))  # __saved_model_init_op.


class RestClient:
    """Asks a server by HTTP and JSON. Several threads may use it at a time."""

    def __init__(self, server: str, model: str, timeout: float) -> None:
        """Connects when it is used.

        Args:
            server: HOST:PORT, or an address that begins with http:// or https://.
            model: name of the model.
            timeout: seconds for a request.
        """
        address = server if "://" in server else f"http://{server}"
        self._url, self._timeout = f"{address}/v1/models/{model}", timeout

    def predict(self, signature: str, files: Sequence[bytes]) -> Outputs:
        """Returns the outputs of a signature for the contents of image files, by name."""
        encoded = [{"b64": base64.b64encode(content).decode()} for content in files]
        request = {"signature_name": signature, "inputs": {INPUT: encoded}}
        outputs = self._ask(":predict", json.dumps(request).encode())["outputs"]
        if not isinstance(outputs, dict):  # The name of an output that is the only one is left out.
            outputs = {"features": outputs}
        arrays = {name: np.array(values) for name, values in outputs.items()}
        return {
            name: values.astype(np.float32) if values.dtype == np.float64 else values
            for name, values in arrays.items()
        }

    def signatures(self) -> list[str]:
        """Returns the names of the signatures of the model."""
        return _predicting(self._ask("/metadata")["metadata"]["signature_def"]["signature_def"])

    def _ask(self, path: str, body: bytes | None = None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._url + path, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise RequestError(
                _OF_HTTP.get(error.code, f"HTTP {error.code}"), _said(error)
            ) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            slow = isinstance(reason, TimeoutError)
            raise RequestError(
                "DEADLINE_EXCEEDED" if slow else "UNAVAILABLE", str(reason)
            ) from error


def _said(error: urllib.error.HTTPError) -> str:
    """Returns the message in the JSON of an error, or its text if the server did not write it."""
    text = error.read().decode(errors="replace")
    try:
        return str(json.loads(text)["error"])
    except (ValueError, TypeError, KeyError):
        return text[:200] or str(error.reason)


def with_retries(call: Callable[[], _Result], retries: int) -> _Result:
    """Calls a function again while it fails for a reason that may go away by itself.

    Pauses double from attempt to attempt, and differ at random, so that clients that failed
    together do not come back together.

    Args:
        call: raises RequestError if it fails.
        retries: the most calls after the first one.
    """
    for attempt in range(retries + 1):
        try:
            return call()
        except RequestError as error:
            if error.code not in _RETRIED or attempt == retries:
                raise
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt) * random.uniform(0.5, 1)
            print(f"{error}; trying again in {pause:.1f} s", file=sys.stderr)
        time.sleep(pause)
    raise AssertionError("range(retries + 1) is not empty")
