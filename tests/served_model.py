"""A stand-in for TensorFlow Serving: the same addresses and the same JSON, for one SavedModel.

It loads the SavedModel by its tag and runs it by the names of tensors in its signatures, as the
server does. What it does not know, such as columns instead of rows, is an error.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
import contextlib
from http import server
import json
import pathlib
import threading
from typing import Any

import numpy as np
import tensorflow as tf

NAME = "simclr"


class Model:
    """A SavedModel that answers requests.

    Attributes:
        signatures: its signatures by their names.
    """

    def __init__(self, parent: pathlib.Path) -> None:
        """Loads the export with the largest number in a folder."""
        newest = max((path for path in parent.iterdir()), key=lambda path: int(path.name))
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph)
        with graph.as_default():
            loaded = tf.compat.v1.saved_model.loader.load(self._session, ["serve"], str(newest))
        self.signatures = loaded.signature_def

    def predict(self, request: dict[str, Any]) -> dict[str, Any]:
        """Returns the answer to the body of a request with rows."""
        assert request.keys() <= {"signature_name", "instances"}, request.keys()
        signature = self.signatures[request.get("signature_name", "serving_default")]
        rows = [_decoded(row) for row in request["instances"]]
        assert all(row.keys() == signature.inputs.keys() for row in rows), rows[0].keys()
        feeds = {
            spec.name: np.array([row[name] for row in rows]).astype(
                tf.dtypes.as_dtype(spec.dtype).as_numpy_dtype
            )
            for name, spec in signature.inputs.items()
        }
        fetches = {name: spec.name for name, spec in signature.outputs.items()}
        found = self._session.run(fetches, feeds)
        assert {len(values) for values in found.values()} == {len(rows)}
        names = found.keys()
        return {"predictions": [{n: found[n][i].tolist() for n in names} for i in range(len(rows))]}


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: base64.b64decode(value["b64"], validate=True) if isinstance(value, dict) else value
        for name, value in row.items()
    }


@contextlib.contextmanager
def serve(parent: pathlib.Path) -> Iterator[int]:
    """Serves the exports in a folder, and yields the port."""
    model = Model(parent)

    class Handler(server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == f"/v1/models/{NAME}/metadata"
            self._answer({"signatures": sorted(model.signatures)})

        def do_POST(self) -> None:
            assert self.path == f"/v1/models/{NAME}:predict"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(model.predict(json.loads(body)))

        def _answer(self, content: dict[str, Any]) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield http.server_address[1]
        http.shutdown()
