"""Files of ONNX, by tf2onnx, which run in ONNX Runtime; both are the extra [onnx]."""

from __future__ import annotations

import importlib.util
import logging
import os
import tempfile

import numpy as np

from simclr_tf import errors, storage, text
from simclr_tf.serving import converted

FILE = "model.onnx"
_PACKAGES = ("tf2onnx", "onnxruntime")
# The operators of this version are in every runtime of the last years.
_OPSET = 17


def check_installed() -> None:
    """Refuses to go on without the packages.

    Raises:
        UserError: naming what is missing.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise errors.UserError(
            f"--format=onnx needs {' and '.join(missing)}, the extra [onnx], which is not "
            "installed; run pip install '.[onnx]' in the folder of this program, or use "
            "--format=tflite."
        )


def write(
    path: str, network: converted.Prepared, dtype: str, samples: converted.Samples | None
) -> None:
    """Writes a network as a file with one input, `images`, and its outputs by their names.

    Args:
        path: the file to write.
        network: the network.
        dtype: float32.
        samples: not used.

    Raises:
        UserError: if the network cannot be converted.
    """
    del samples
    assert dtype == "float32", dtype
    check_installed()
    import tf2onnx  # An extra.

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)  # Its progress.
    function = network.of_prepared
    with tempfile.TemporaryDirectory() as folder:
        local = os.path.join(folder, FILE)
        try:
            tf2onnx.convert.from_function(
                function, input_signature=function.input_signature, opset=_OPSET, output_path=local
            )
        except Exception as error:  # The converter raises many kinds.
            raise errors.UserError(
                f"tf2onnx cannot convert this network ({text.reason(error)}); use --format=tflite "
                "or --format=serving."
            ) from error
        content = storage.read_bytes(local)
    storage.replace(path, content)


def load(path: str) -> converted.Run:
    """Returns what runs a file, on the processor."""
    import onnxruntime  # An extra.

    session = onnxruntime.InferenceSession(
        storage.read_bytes(path), providers=["CPUExecutionProvider"]
    )
    names = [one.name for one in session.get_outputs()]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, {"images": images})))

    return run
