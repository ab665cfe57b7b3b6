"""Checks of requests that are the same for gRPC and for REST, with TensorFlow Serving's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import get_model_metadata_pb2

DEFAULT_SIGNATURE = "serving_default"


class Refusal(Exception):
    """A request that is not answered, for a reason with a status code of gRPC.

    Attributes:
        code: name of the status code.
    """

    def __init__(self, code: str, message: str) -> None:
        """Takes the name of the code, and the message."""
        super().__init__(message)
        self.code = code


class Model(Protocol):
    """What is served.

    Attributes:
        name: its name in addresses and requests.
        version: its number.
        signatures: SignatureDefs by name.
    """

    name: str
    version: int
    signatures: Mapping[str, Any]

    def predict(
        self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Returns the outputs of these names; raises Refusal."""


def run(
    model: Model,
    name: str,
    version: int | None,
    signature: str,
    inputs: Mapping[str, np.ndarray],
    output_filter: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """Checks a request as TensorFlow Serving does, and answers it.

    Raises:
        Refusal: with the status code of TensorFlow Serving.
    """
    find(model, name, version)
    if signature not in model.signatures:
        sentence = f'Serving signature key "{signature}" not found.'
        raise Refusal("FAILED_PRECONDITION", sentence)
    taken, returned = model.signatures[signature].inputs, model.signatures[signature].outputs
    if len(inputs) != len(taken):
        sentence = f"input size does not match signature: {len(inputs)}!={len(taken)}"
        raise Refusal("INVALID_ARGUMENT", sentence)
    for kind, given, known in (("input", inputs, taken), ("output", output_filter, returned)):
        for alias in given:
            if alias not in known:
                sentence = f"{kind} tensor alias not found in signature: {alias}"
                raise Refusal("INVALID_ARGUMENT", sentence)
    return model.predict(signature, inputs, list(output_filter or returned))


def find(model: Model, name: str, version: int | None) -> None:
    """Raises Refusal if another model, or another version, is asked for."""
    if name != model.name or version not in (None, model.version):
        asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        raise Refusal("NOT_FOUND", f"Servable not found for request: {asked}")


def signature_map(model: Model) -> Any:
    """Returns the message with the signatures of a model."""
    found = get_model_metadata_pb2.SignatureDefMap()
    for name, signature in model.signatures.items():
        found.signature_def[name].CopyFrom(signature)
    return found


def signature_def(inputs: Mapping[str, int], outputs: Mapping[str, int]) -> Any:
    """Returns a SignatureDef with inputs and outputs of these dtypes, for models of tests."""
    made = meta_graph_pb2.SignatureDef()
    for infos, dtypes in ((made.inputs, inputs), (made.outputs, outputs)):
        for name, dtype in dtypes.items():
            infos[name].dtype = dtype
    return made
