"""The forms in which a network is exported, and where each is written."""

from __future__ import annotations

import dataclasses

from simclr_tf.config.sections import serving as settings

_FOLDERS = {"serving": "saved_model", "tflite": "tflite", "onnx": "onnx"}
_NAMES = {"serving": "SavedModel", "tflite": "TensorFlow Lite model", "onnx": "ONNX model"}


@dataclasses.dataclass(frozen=True)
class Form:
    """A form of an export.

    Attributes:
        format: "serving", a SavedModel; "tflite"; or "onnx".
        dtype: in what the network computes, one of `settings.FORMAT_DTYPES`. Its inputs and outputs
            are float32 in every form.
    """

    format: str = "serving"
    dtype: str = "float32"

    @property
    def folder(self) -> str:
        """Name of the folder of such exports in a run directory."""
        folder = _FOLDERS[self.format]
        return folder if self.dtype == "float32" else f"{folder}_{self.dtype}"

    @property
    def name(self) -> str:
        """What it is, for messages."""
        return _NAMES[self.format]


SAVED_MODEL = Form()
ALL = [Form(name, dtype) for name in _FOLDERS for dtype in settings.FORMAT_DTYPES[name]]
