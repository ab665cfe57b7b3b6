"""A stand-in for TensorFlow Serving: its gRPC service and its REST addresses, for one SavedModel.

It loads the SavedModel by its tag, runs it by the names of tensors in its signatures, and answers
with the status codes of the server. `serving_rest` has the rules of JSON. As a program, it serves
until its standard input is closed; it then has memory of its own, and only it ends with a crash.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
import contextlib
import dataclasses
from http import server as http_server
import json
import os
import pathlib
import subprocess
import sys
import threading
from typing import Any

import grpc
import numpy as np
import serving_requests
import serving_rest
import tensorflow as tf
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc

_WORKERS = 8
# Messages of any length, as in TensorFlow Serving; gRPC's own limit is 4 MiB.
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class SavedModel:
    """The newest SavedModel in a folder of exports."""

    def __init__(self, parent: pathlib.Path, name: str = "simclr") -> None:
        """Loads the export with the largest number."""
        newest = max(parent.iterdir(), key=lambda path: int(path.name))
        self.name, self.version = name, int(newest.name)
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph)
        with graph.as_default():
            loaded = tf.compat.v1.saved_model.loader.load(self._session, ["serve"], str(newest))
        self.signatures = loaded.signature_def

    def predict(
        self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Runs the graph."""
        taken, returned = self.signatures[signature].inputs, self.signatures[signature].outputs
        for name, values in inputs.items():
            dtype = tf.dtypes.as_dtype(taken[name].dtype)
            if tf.dtypes.as_dtype(values.dtype) != dtype:
                raise serving_requests.Refusal(
                    "INVALID_ARGUMENT", f"Expects arg to be {dtype.name} but another"
                )
        feeds = {taken[name].name: values for name, values in inputs.items()}
        fetches = {name: returned[name].name for name in outputs}
        try:
            return self._session.run(fetches, feeds)
        except tf.errors.OpError as error:
            raise serving_requests.Refusal(_CODES[error.error_code].name, error.message) from error
        except ValueError as error:  # The shape does not fit, which Python checks itself.
            raise serving_requests.Refusal("INVALID_ARGUMENT", str(error)) from error


class _Service(prediction_service_pb2_grpc.PredictionServiceServicer):
    """The gRPC service."""

    def __init__(self, model: serving_requests.Model) -> None:
        self._model = model

    def Predict(self, request: Any, context: Any) -> Any:
        spec = request.model_spec
        signature = spec.signature_name or serving_requests.DEFAULT_SIGNATURE
        try:
            inputs = {name: _array(tensor) for name, tensor in request.inputs.items()}
            found = serving_requests.run(
                self._model, spec.name, _version(spec), signature, inputs, request.output_filter
            )
        except serving_requests.Refusal as refusal:
            context.abort(grpc.StatusCode[refusal.code], str(refusal))
        response = predict_pb2.PredictResponse()
        self._name(response.model_spec, signature)
        for name, values in found.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(values))
        return response

    def GetModelMetadata(self, request: Any, context: Any) -> Any:
        try:
            serving_requests.find(
                self._model, request.model_spec.name, _version(request.model_spec)
            )
            if list(request.metadata_field) != ["signature_def"]:
                raise serving_requests.Refusal(
                    "INVALID_ARGUMENT", "Metadata field is not supported"
                )
        except serving_requests.Refusal as refusal:
            context.abort(grpc.StatusCode[refusal.code], str(refusal))
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        self._name(response.model_spec)
        response.metadata["signature_def"].Pack(serving_requests.signature_map(self._model))
        return response

    def _name(self, spec: Any, signature: str = "") -> None:
        spec.name, spec.version.value = self._model.name, self._model.version
        spec.signature_name = signature


def _version(spec: Any) -> int | None:
    return spec.version.value if spec.HasField("version") else None


def _array(tensor: Any) -> np.ndarray:
    try:
        return tf.make_ndarray(tensor)
    except (TypeError, ValueError) as error:
        raise serving_requests.Refusal(
            "INVALID_ARGUMENT", f"tensor parsing error: {error}"
        ) from error


@dataclasses.dataclass(frozen=True)
class Addresses:
    """Where a server is: HOST:PORT for gRPC and for REST, and its process."""

    grpc: str
    rest: str
    pid: int


@contextlib.contextmanager
def serve(model: serving_requests.Model) -> Iterator[Addresses]:
    """Serves a model from this process."""

    class Handler(http_server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers["Content-Length"])))

        def _answer(self, body: bytes) -> None:
            status, content = serving_rest.answer(model, self.command, self.path, body)
            encoded = json.dumps(content, indent=1).encode()
            with contextlib.suppress(ConnectionError):  # The client no longer waits.
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(encoded)))
                self.end_headers()
                self.wfile.write(encoded)

        def log_message(self, *_: Any) -> None:
            pass

    service = grpc.server(futures.ThreadPoolExecutor(_WORKERS), options=_OPTIONS)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Service(model), service)
    grpc_port = service.add_insecure_port("127.0.0.1:0")
    with http_server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        service.start()
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        port = http.server_address[1]
        yield Addresses(f"127.0.0.1:{grpc_port}", f"127.0.0.1:{port}", os.getpid())
        http.shutdown()
    service.stop(None).wait()


@contextlib.contextmanager
def start(python: str, parent: pathlib.Path) -> Iterator[Addresses]:
    """Serves the newest SavedModel in a folder from a process, which must not end before."""
    command = [python, __file__, str(parent)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        yield Addresses(**json.loads(process.stdout.readline()))
        ended = process.poll()
        process.stdin.close()
        process.wait()
    assert ended is None, f"the server ended with {ended}"


if __name__ == "__main__":
    with serve(SavedModel(pathlib.Path(sys.argv[1]))) as _addresses:
        print(json.dumps(dataclasses.asdict(_addresses)), flush=True)
        sys.stdin.read()
