"""What an export computes and returns, and what is written beside it."""

from __future__ import annotations

import dataclasses

from simclr_tf import errors, text
from simclr_tf.config.metadata import Section

# Outputs of the network that --export_outputs may name.
OUTPUTS = ("features", "embedding", "projection", "logits", "probabilities", "top_classes")
_AUTO = "auto"
# In what the network of each --format may compute.
FORMAT_DTYPES = {
    "serving": ("float32", "bfloat16"),
    "official": ("float32",),
    "tflite": ("float32", "float16", "int8"),
    "onnx": ("float32",),
}

_SERVING = Section("Serving")


@dataclasses.dataclass(frozen=True)
class ServingSettings:
    """What an export computes and returns, and what is written beside it."""

    export_outputs: str = _SERVING.setting(
        _AUTO,
        f"Outputs of the signatures of the export, a list of {', '.join(OUTPUTS)}. auto: "
        "features and, with a linear head, logits. embedding is features of length 1; "
        "probabilities and top_classes follow from the logits, so these three need a linear head.",
        resume="freely",
    )

    export_dtype: str = _SERVING.setting(
        "float32",
        "In what the network of the export computes; its inputs and outputs are float32. bfloat16 "
        "is for --format=serving. float16 and int8 are for --format=tflite: weights of a half and "
        "of a quarter of the size; int8 is quantised by training images. What another format or "
        "dtype costs is measured on images of the evaluation split, printed and stored.",
        choices=("float32", "bfloat16", "float16", "int8"),
        only_with=("mode", ("export",)),
        resume="freely",
    )
    weights_license: str | None = _SERVING.setting(
        None,
        "Licence of the weights, such as CC-BY-4.0, for model.json and MODEL_CARD.md of the "
        "export.",
        resume="freely",
    )

    @property
    def export_output_names(self) -> tuple[str, ...] | None:
        """The outputs that --export_outputs names, in the order of `OUTPUTS`; None for auto.

        Raises:
            ArgumentError: if there is no such output.
        """
        if self.export_outputs == _AUTO:
            return None
        names = [name.strip() for name in self.export_outputs.split(",")]
        for name in names:
            if name not in OUTPUTS:
                raise errors.ArgumentError(
                    "export_outputs",
                    self.export_outputs,
                    f"names {name!r}{text.suggestion(name, OUTPUTS)}, which is not one of "
                    f"{', '.join(OUTPUTS)}; list some of these, or give auto.",
                )
        return tuple(name for name in OUTPUTS if name in names)
