"""What lies beside an exported network: its description for programs and for people."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
from typing import Any

import tensorflow as tf

from simclr_tf import errors, storage
from simclr_tf.data import crops, decode
from simclr_tf.models import simclr
from simclr_tf.runs import directory, environment
from simclr_tf.serving import inputs, outputs, warmup
from simclr_tf.serving import servable as servables

DESCRIPTION, CARD = "assets.extra/model.json", "MODEL_CARD.md"
_TEMPLATES = pathlib.Path(__file__).parent / "templates"
_DATA = "data.json"


def write(
    folder: str,
    servable: servables.Servable,
    architecture: simclr.Architecture,
    model_dir: str,
    step: int,
    *,
    weights_license: str | None,
) -> None:
    """Writes warm-up requests, model.json and MODEL_CARD.md into the folder of a SavedModel.

    Args:
        folder: the folder.
        servable: what was saved in it.
        architecture: that of the network.
        model_dir: its run directory, whose data and results are described.
        step: its training step.
        weights_license: licence of the weights; None if it was not given.

    Raises:
        UserError: if a file cannot be written.
    """
    warmup.write(folder, architecture.image_size)
    description = {
        "step": step,
        "encoder": architecture.encoder_name,
        "classes": architecture.class_names and list(architecture.class_names),
        "image_size": architecture.image_size,
        "feature_width": servable.feature_width,
        "features_have_length_1": architecture.normalize_features,
        "signatures": _signatures(servable),
        "outputs": {name: outputs.DESCRIPTIONS[name] for name in (*servable.names, outputs.VALID)},
        "preprocessing": _preprocessing(architecture.image_size),
        "limits": {
            "max_pixels": decode.MAX_PIXELS,
            "max_aspect": inputs.MAX_ASPECT,
            "tolerance": inputs.TOLERANCE,
        },
        "fingerprint": fingerprint(servable.weights),
        "license": weights_license,
        "program": _program(model_dir),
        "data": _data(model_dir),
        "metrics": _metrics(model_dir, step),
    }
    _write_both(folder, description)


def update_metrics(folder: str, model_dir: str, step: int) -> None:
    """Describes the results of a run in its export, if there is one.

    Args:
        folder: the folder of the export of this step, which may be missing or of an older program.
        model_dir: the run directory.
        step: the training step.

    Raises:
        UserError: if a file cannot be read or written.
    """
    path = os.path.join(folder, DESCRIPTION)
    if tf.io.gfile.exists(path):
        _write_both(folder, {**storage.read_json(path), "metrics": _metrics(model_dir, step)})


def fingerprint(variables: list[tf.Variable]) -> str:
    """Returns a hash over the shapes and over every bit of the values of variables."""
    digest = hashlib.sha256()
    for variable in variables:
        digest.update(str(variable.shape.as_list()).encode())
        digest.update(variable.numpy().tobytes())
    return digest.hexdigest()


def _write_both(folder: str, description: dict[str, Any]) -> None:
    import jinja2  # Not before an export is written.

    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=False,  # It is not HTML.
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    storage.write_json(os.path.join(folder, DESCRIPTION), description)
    card = templates.get_template(f"{CARD}.jinja").render(description)
    storage.replace(os.path.join(folder, CARD), card.rstrip() + "\n")


def _signatures(servable: servables.Servable) -> dict[str, Any]:
    described = {}
    for name, function in servable.signatures().items():
        (taken,) = function.input_signature
        described[name] = {
            "input": taken.name,
            "shape": taken.shape.as_list(),
            "dtype": taken.dtype.name,
            "outputs": [*servable.names, *([outputs.VALID] if name == servables.OF_BYTES else [])],
        }
    return described


def _preprocessing(size: int) -> dict[str, Any]:
    """Returns, in numbers and words, what is done to an image before the network sees it."""
    kept = crops.evaluation_crop(size)
    share = "its shorter side" if kept == 1 else f"{kept} of its shorter side"
    return {
        "colours": "RGB",
        "range": [0.0, 1.0],
        "crop": kept,
        "resize": "bicubic",
        "size": [size, size],
        "description": (
            "Values are RGB from 0 to 1, 8-bit ones divided by 255. Of an image, the square in the "
            f"centre whose side is {share} is kept, and resized to {size} x {size} pixels by "
            "TensorFlow's bicubic kernel without antialiasing; results are clipped to [0, 1]. "
            "Encoded photos are turned upright by their EXIF orientation first. All signatures do "
            "this themselves, except for `prepared`, which takes the result."
        ),
    }


def _program(model_dir: str) -> dict[str, Any]:
    """Returns the versions of what trained the run; without it, of this program."""
    found = _read(os.path.join(model_dir, environment.ENVIRONMENT))
    if not found:
        found = environment.describe(tf.distribute.get_strategy())
    return {name: found.get(name) for name in ("simclr_tf", "commit", "tensorflow")}


def _data(model_dir: str) -> dict[str, Any]:
    """Returns what the run directory says of the data that the network was trained on."""
    found: dict[str, Any] = {}
    with contextlib.suppress(errors.UserError):  # Damaged files do not keep a network from use.
        config = directory.read_config(model_dir)
        if config is not None:
            found = {"dataset": config.resolved_dataset, "split": config.train_split}
    images = _read(os.path.join(model_dir, _DATA)).get("images")
    return {**found, "images": images} if images is not None else found


def _metrics(model_dir: str, step: int) -> dict[str, Any]:
    """Returns the numbers of the evaluation of a step, with their intervals, named NAME_95."""
    found = _read(os.path.join(model_dir, f"result_{step}.json"))
    return {
        name: value
        for name, value in found.items()
        if name.startswith("eval/") and isinstance(value, (int, float, list))
    }


def _read(path: str) -> dict[str, Any]:
    """Returns the content of a JSON file; nothing if it is missing or damaged."""
    if not tf.io.gfile.exists(path):
        return {}
    try:
        found = storage.read_json(path)
    except errors.UserError:
        return {}
    return found if isinstance(found, dict) else {}
