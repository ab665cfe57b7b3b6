"""What a SavedModel says of itself: its fingerprint, and its signature for encoded images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import os
from typing import Any

from google.protobuf import message
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from simclr_tf import errors, storage, text
from simclr_tf.serving import servable

NAME = servable.OF_BYTES_STRICT
_FILE = "saved_model.pb"
_SERVE = "serve"
_BLOCK = 2**22


@dataclasses.dataclass(frozen=True)
class Signature:
    """The signature `serving_bytes_strict` of a SavedModel.

    Attributes:
        folder: the SavedModel.
        fingerprint: a hash of the names and the content of the files that make its results.
        argument: name of the input, encoded images (b,) string.
        outputs: name of an output (b, w) float32 -> w.
    """

    folder: str
    fingerprint: str
    argument: str
    outputs: Mapping[str, int]

    def chosen(self, names: Sequence[str]) -> dict[str, int]:
        """Returns the widths of some outputs.

        Raises:
            UserError: if there is no such output.
        """
        for name in names:
            if name not in self.outputs:
                raise errors.UserError(
                    f"--outputs names {name!r}, which {NAME} of {self.folder} does not return"
                    f"{text.suggestion(name, self.outputs)}; it returns "
                    f"{', '.join(sorted(self.outputs))}."
                )
        return {name: self.outputs[name] for name in names}


def read(folder: str) -> Signature:
    """Reads the signature without loading the weights.

    Raises:
        UserError: if the folder is not a SavedModel with this signature.
    """
    definitions = _definitions(folder)
    if NAME not in definitions:
        has = ", ".join(sorted(definitions)) or "none"
        raise errors.UserError(
            f"--saved_model={folder} has no signature {NAME} (its signatures: {has}); export the "
            "run again with python run.py --mode=export, without --format=official."
        )
    definition = definitions[NAME]
    inputs = {name: info.dtype for name, info in definition.inputs.items()}
    if list(inputs.values()) != [tf.string.as_datatype_enum]:
        raise errors.UserError(
            f"{NAME} of --saved_model={folder} must take one input, encoded images (b,) string, "
            f"and it takes {', '.join(sorted(inputs)) or 'none'}; export the run again with "
            "python run.py --mode=export."
        )
    (argument,) = inputs
    widths = {name: _width(info) for name, info in definition.outputs.items()}
    outputs = {name: width for name, width in widths.items() if width is not None}
    return Signature(folder, _fingerprint(folder), argument, outputs)


def _definitions(folder: str) -> dict[str, Any]:
    """Returns the signatures by name."""
    path = os.path.join(folder, _FILE)
    if not tf.io.gfile.exists(path):
        versions = [name for name in storage.names_in(folder) if name.isdigit()]
        if versions:
            remedy = f"name one of the SavedModels in it, such as {folder}/{max(versions, key=int)}"
        else:
            remedy = "name a folder such as RUN/saved_model/STEP, which --mode=export writes"
        raise errors.UserError(f"--saved_model={folder} has no {_FILE}; {remedy}.")
    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString(storage.read_bytes(path))
    except message.DecodeError as error:
        raise errors.UserError(
            f"{path} is damaged ({text.reason(error)}); export the run again with python run.py "
            "--mode=export."
        ) from error
    for graph in saved.meta_graphs:
        if _SERVE in graph.meta_info_def.tags:
            found = dict(graph.signature_def.items())
            found.pop("__saved_model_init_op", None)
            return found
    return {}


def _width(info: Any) -> int | None:
    """Returns w of an output (b, w) float32; None for other outputs."""
    sizes = [dimension.size for dimension in info.tensor_shape.dim]
    if info.dtype != tf.float32.as_datatype_enum or len(sizes) != 2 or sizes[1] < 1:
        return None
    return int(sizes[1])


def _fingerprint(folder: str) -> str:
    """Returns a hash of the files of a SavedModel that make its results.

    What describes it, such as a model card, changes when it is evaluated again.
    """
    digest = hashlib.sha256()
    found = [os.path.join(folder, _FILE)]
    for name in ("variables", "assets"):
        for parent, _, names in tf.io.gfile.walk(os.path.join(folder, name)):
            found += sorted(os.path.join(parent, one) for one in names)
    for path in found:
        digest.update(
            f"{os.path.relpath(path, folder)}\n{tf.io.gfile.stat(path).length}\n".encode()
        )
        with tf.io.gfile.GFile(path, "rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()
