"""What lies beside an exported network: its description for programs and for people."""

from __future__ import annotations

from collections.abc import Mapping
import contextlib
import hashlib
import os
import pathlib
from typing import Any, Protocol

import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import errors, storage
from simclr_tf.data import decode
from simclr_tf.models import simclr
from simclr_tf.runs import directory, environment, measured
from simclr_tf.serving import forms, inputs, outputs, preprocessing
from simclr_tf.serving import servable as servables

DESCRIPTION, CARD = "assets.extra/model.json", "MODEL_CARD.md"
_PLAIN_DESCRIPTION = "model.json"  # Its place beside a file that is not a SavedModel.
_TEMPLATES = pathlib.Path(__file__).parent / "templates"
_DATA = "data.json"
_LIMITS = {
    "max_pixels": decode.MAX_PIXELS,
    "max_aspect": inputs.MAX_ASPECT,
    "tolerance": inputs.TOLERANCE,
}
# What the descriptions of older versions lack.
_OF_OLDER_EXPORTS = {
    "format": "serving",
    "dtype": "float32",
    "conversion": None,
    "several_labels": False,
}
_MEASURED = ("linear_eval/", "eval/", "baseline/")  # Beginnings of names in result.json.


class Exported(Protocol):
    """What is saved in an export; see `servable.Servable`."""

    names: tuple[str, ...]
    feature_width: int
    weights: list[tf.Variable]

    def signatures(self) -> dict[str, Any]:
        """Returns the functions by the names of their signatures."""


def write(
    folder: str,
    servable: Exported,
    architecture: simclr.Architecture,
    model_dir: str,
    step: int,
    *,
    weights_license: str | None,
    form: forms.Form = forms.SAVED_MODEL,
    conversion: Mapping[str, Any] | None = None,
) -> None:
    """Writes model.json and MODEL_CARD.md into the folder of an export.

    Args:
        folder: the folder.
        servable: what was saved in it.
        architecture: that of the network.
        model_dir: its run directory, whose data and results are described.
        step: its training step.
        weights_license: licence of the weights; None if it was not given.
        form: the form of the export.
        conversion: how it differs from the network in float32; None if it does not.

    Raises:
        UserError: if a file cannot be written.
    """
    description = {
        "step": step,
        "format": form.format,
        "dtype": form.dtype,
        "conversion": conversion,
        "encoder": architecture.encoder_name,
        "classes": architecture.class_names and list(architecture.class_names),
        "several_labels": architecture.several_labels,
        "image_size": architecture.image_size,
        "feature_width": servable.feature_width,
        "features_have_length_1": architecture.normalize_features,
        "signatures": _signatures(servable),
        "outputs": {
            name: outputs.describe(name, several_labels=architecture.several_labels)
            for name in _outputs(servable, form)
        },
        "pixels": preprocessing.pixels_of(architecture.pixels),
        "preprocessing": preprocessing.describe(architecture, form),
        "limits": _LIMITS if form.format == "serving" else None,
        "fingerprint": fingerprint(servable.weights),
        "license": weights_license,
        "program": _program(model_dir),
        "data": _data(model_dir),
        **_evaluation(model_dir, step),
    }
    _write_both(folder, description, model_dir)


def update_metrics(folder: str, model_dir: str, step: int) -> None:
    """Describes the results of a run in its export, if there is one.

    Args:
        folder: the folder of the export of this step, which may be missing or of an older program.
        model_dir: the run directory.
        step: the training step.

    Raises:
        UserError: if a file cannot be read or written.
    """
    for name in (DESCRIPTION, _PLAIN_DESCRIPTION):
        path = os.path.join(folder, name)
        if tf.io.gfile.exists(path):
            described = {**storage.read_json(path), **_evaluation(model_dir, step)}
            _write_both(folder, described, model_dir)


def conversion_rows(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Returns rows of a table of what a conversion changes: what, in float32, converted.

    Args:
        found: what was measured, as in model.json.
    """
    rows = []
    if "accuracy" in found:
        before, after, difference = (
            _with_ends(found, name)
            for name in ("accuracy_float32", "accuracy", "accuracy_difference")
        )
        rows += [("accuracy of the linear head", before, after), ("difference", "", difference)]
    if "changed_predictions" in found:
        changed = f"{found['changed_predictions']:.1%}"
        rows.append(("images with another likeliest class", "", changed))
    if "cosine" in found:
        cosine = f"{found['cosine']:.4f} (least {found['cosine_least']:.4f})"
        rows.append((f"cosine to the {found['cosine_of']} in float32", "", cosine))
    sizes = [f"{found[name] / 1e6:.2f} MB" for name in ("bytes_float32", "bytes")]
    times = [f"{found[name]:.2f} ms" for name in ("ms_per_image_float32", "ms_per_image")]
    rows.append(("size of the weights, of the export", sizes[0], sizes[1]))
    return [*rows, ("time of one image", times[0], times[1])]


def _with_ends(found: Mapping[str, Any], name: str) -> str:
    low, high = found[f"{name}_95"]
    sign = "+" if name.endswith("difference") else ""
    return f"{found[name]:{sign}.1%} ({100 * low:{sign}.1f} to {100 * high:{sign}.1f})"


def fingerprint(variables: list[tf.Variable]) -> str:
    """Returns a hash over the shapes and over every bit of the values of variables."""
    digest = hashlib.sha256()
    for variable in variables:
        digest.update(str(variable.shape.as_list()).encode())
        digest.update(variable.numpy().tobytes())
    return digest.hexdigest()


def _write_both(folder: str, description: dict[str, Any], model_dir: str) -> None:
    import jinja2  # Not before an export is written.

    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=False,  # It is not HTML.
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    form = description.get("format", forms.SAVED_MODEL.format)
    name = DESCRIPTION if form == forms.SAVED_MODEL.format else _PLAIN_DESCRIPTION
    tf.io.gfile.makedirs(os.path.dirname(os.path.join(folder, name)))
    storage.write_json(os.path.join(folder, name), description)
    accuracies = _accuracies(model_dir, description["metrics"])
    titles = measured.TITLES[measured.measure_of(description["metrics"])]
    described = {**_OF_OLDER_EXPORTS, **description, "accuracies": accuracies, "titles": titles}
    measured_conversion = described["conversion"] or {}
    if "images" in measured_conversion:
        described["conversion_rows"] = conversion_rows(measured_conversion)
    card = templates.get_template(f"{CARD}.jinja").render(described, description_file=name)
    storage.replace(os.path.join(folder, CARD), card.rstrip() + "\n")


def _outputs(servable: Exported, form: forms.Form) -> tuple[str, ...]:
    return (*servable.names, *([outputs.VALID] if form.format == "serving" else []))


def _signatures(servable: Exported) -> dict[str, Any]:
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


def _program(model_dir: str) -> dict[str, Any]:
    """Returns the versions of what trained the run; without it, of this program."""
    found = _read(os.path.join(model_dir, environment.ENVIRONMENT))
    if not found:
        found = environment.describe(tf.distribute.get_strategy())
    return {name: found.get(name) for name in ("simclr_tf", "commit", "tensorflow")}


def _data(model_dir: str) -> dict[str, Any]:
    """Returns what the run directory says of the data that the network was trained on."""
    config = _config(model_dir)
    found = config and {"dataset": config.resolved_dataset, "split": config.train_split}
    images = _read(os.path.join(model_dir, _DATA)).get("images")
    return {**(found or {}), **({} if images is None else {"images": images})}


def _config(model_dir: str) -> config_lib.Config | None:
    with contextlib.suppress(errors.UserError):  # Damaged files do not keep a network from use.
        return directory.read_config(model_dir)
    return None


def _evaluation(model_dir: str, step: int) -> dict[str, Any]:
    """Returns the accuracies at a step with their intervals, named NAME_95, and of which images."""
    found = _read(os.path.join(model_dir, f"result_{step}.json"))
    on = found.get("eval/measured_on") or {}
    return {
        "metrics": {
            name: value
            for name, value in found.items()
            if name.startswith(_MEASURED) and isinstance(value, (int, float, list))
        },
        "measured_on": {
            name: on[key]
            for name, key in (
                ("dataset", "dataset"),
                ("split", "eval_split"),
                ("images", "eval_examples"),
            )
            if key in on
        },
    }


def _accuracies(model_dir: str, metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the rows of the card's table."""
    config = _config(model_dir)
    names = measured.accuracy_names(metrics, contrastive=config is None or config.contrastive)
    measure = measured.measure_of(metrics)
    return [
        {
            "name": name,
            "top_1": metrics[f"{prefix}{measure}"],
            "ends": metrics.get(f"{prefix}{measure}_95"),
            "top_5": metrics.get(f"{prefix}{measured.BESIDE[measure]}"),
        }
        for prefix, name in names.items()
        if f"{prefix}{measure}" in metrics
    ]


def _read(path: str) -> dict[str, Any]:
    """Returns the content of a JSON file; nothing if it is missing or damaged."""
    if not tf.io.gfile.exists(path):
        return {}
    try:
        found = storage.read_json(path)
    except errors.UserError:
        return {}
    return found if isinstance(found, dict) else {}
