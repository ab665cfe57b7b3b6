"""Finds weights that google-research/simclr wrote, by their names, and reads them without its code.

There are three forms: TF2 SavedModels, as of the published v1 and v2 models; object checkpoints of
its TF2 training; and name-based checkpoints of its TF1 code, which its hub modules also contain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import dataclasses
import functools
import json
import os
import re
from typing import Any

from google.protobuf import message
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from simclr_tf import errors, paths, storage, text
from simclr_tf.reference import graphs, names

_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_SAVED_MODEL = "saved_model.pb"
_INDEX = ".index"
# Folders in a run directory of the reference that may contain weights, in order of preference.
_USUAL = ("saved_model", "hub", "checkpoint", "checkpoints")
# Where the names of each form begin, after any prefix in a checkpoint.
_BEGINNING = {
    "tf1": re.compile(r"(?:^|/)(base_model|head_contrastive|head_supervised)/"),
    "variable": re.compile(r"(?:^|/)(resnet|projection_head|head_supervised)(?:_\d+)?/"),
    "path": re.compile(r"(?:^|/)(resnet_model|_projection_head|supervised_head)/"),
}
# Layers that Keras numbers.
_NUMBERED = re.compile(
    r"(conv2d_fixed_padding|conv2d|batch_norm_relu|(?:sync_)?batch_normalization|residual_block|"
    r"bottleneck_block|sk__conv2d|se__layer|dense)(?:_(\d+))?"
)


@dataclasses.dataclass(frozen=True)
class Stored:
    """Weights on disk.

    Attributes:
        origin: the checkpoint or the folder of the SavedModel.
        kind: kind of the checkpoint, for messages.
        form: form of its names, one of `names.FORMS`.
        shapes: shapes of the weights, by canonical name (see `canonical`).
        slots: names of the variables of an optimizer.
        others: names of all other variables.
        graph: properties of the graph, if there is one.
        flags: flags of the run, from the flags.json that the reference writes; empty if there is
            none.
    """

    origin: str
    kind: str
    form: str
    shapes: Mapping[str, tuple[int, ...]]
    slots: tuple[str, ...]
    others: tuple[str, ...]
    graph: graphs.GraphInfo | None
    flags: Mapping[str, Any]
    _keys: Mapping[str, str]
    _reader: Any

    def read(self, name: str) -> np.ndarray:
        """Returns a weight by its canonical name.

        Raises:
            UserError: if the file cannot be read.
        """
        try:
            return self._reader.get_tensor(self._keys[name])
        except (tf.errors.OpError, IndexError) as error:
            raise _unreadable(self.origin, error) from error


def canonical(form: str, stored: Iterable[str]) -> dict[str, str]:
    """Returns canonical names, which do not depend on the number at which Keras began to count.

    A network that is not the first of its process has higher numbers, and batch norm has another
    name if the reference ran without global batch norm.

    Args:
        form: one of `names.FORMS`.
        stored: all names in a checkpoint.

    Returns:
        The canonical name of each name that may be a weight in this form, by the stored name.
    """
    split = {}
    for name in stored:
        beginning = _BEGINNING[form].search(name)
        segments = name.removesuffix(names.VALUE_SUFFIX).split("/")
        if beginning and segments[-1] in names.LEAVES:
            split[name] = [beginning[1], *segments[name.count("/", 0, beginning.end()) :]]
    if form == "path":  # Numbers in paths are indices into lists.
        return {name: "/".join(["model", *segments]) for name, segments in split.items()}
    first: dict[tuple[str, str], int] = {}
    for segments in split.values():
        for scope, kind, number in _numbers(form, segments):
            first[scope, kind] = min(number, first.get((scope, kind), number))
    return {name: "/".join(_renumbered(form, segments, first)) for name, segments in split.items()}


@functools.cache
def _numbered(segment: str) -> tuple[str, int] | None:
    """Splits the name of a layer that Keras numbers; returns None for other segments of a name."""
    match = _NUMBERED.fullmatch(segment)
    return (match[1].removeprefix("sync_"), int(match[2] or 0)) if match else None


def _numbers(form: str, segments: list[str]) -> Iterable[tuple[str, str, int]]:
    """Yields, for each numbered segment, the scope of its numbering, its kind and its number."""
    # In heads, TF1 numbers the layers of each scope separately.
    head = form == "tf1" and segments[0] != "base_model"
    scope = "/".join(segments[:2]) if head else segments[0]
    for kind, number in filter(None, map(_numbered, segments)):
        yield scope, kind, number


def _renumbered(form: str, segments: list[str], first: dict[tuple[str, str], int]) -> Iterable[str]:
    numbers = iter(_numbers(form, segments))
    for segment in segments:
        if _numbered(segment):
            scope, kind, number = next(numbers)
            yield f"{kind}_{number - first[scope, kind]}"
        else:
            yield segment


def find(path: str) -> Stored | None:
    """Opens the weights at a path, if the reference wrote them.

    Args:
        path: a checkpoint (also one of its files), the folder of a SavedModel, or a folder that
            contains one of these, such as a run directory of the reference.

    Returns:
        The weights; None if no variable there has a name of the reference.

    Raises:
        UserError: if it cannot be read, or a folder contains several models.
    """
    located = _locate(path.rstrip("/"), depth=3)
    if located is None:
        return None
    prefix, saved_model = located
    try:
        reader = tf.train.load_checkpoint(paths.literal_prefix(prefix))
        shapes = reader.get_variable_to_shape_map()
        variable_names = _variable_names(reader) if _GRAPH in shapes else {}
    except (tf.errors.OpError, IndexError, message.DecodeError) as error:
        raise _unreadable(prefix, error) from error
    form, keys = _best_form(shapes, variable_names)
    if not keys:
        return None
    return _stored(saved_model, prefix, form, keys, shapes, reader)


def _stored(
    saved_model: str | None,
    prefix: str,
    form: str,
    keys: dict[str, str],
    shapes: dict[str, list[int]],
    reader: Any,
) -> Stored:
    rest = sorted(set(shapes) - set(keys.values()) - {_GRAPH})
    slots = tuple(name for name in rest if _is_slot(name, shapes))
    kind = "TF1 checkpoint" if form == "tf1" else "TF2 checkpoint"
    return Stored(
        origin=saved_model or prefix,
        kind=kind.replace("checkpoint", "SavedModel") if saved_model else kind,
        form=form,
        shapes={name: tuple(shapes[key]) for name, key in keys.items()},
        slots=slots,
        others=tuple(name for name in rest if name not in slots),
        graph=graphs.read(os.path.join(saved_model, _SAVED_MODEL)) if saved_model else None,
        flags=_flags_beside(saved_model or os.path.dirname(prefix)),
        _keys=keys,
        _reader=reader,
    )


def _best_form(
    shapes: Mapping[str, Any], variable_names: Mapping[str, str]
) -> tuple[str, dict[str, str]]:
    """Returns the form in which most weights have names, and their keys by canonical name."""
    best: tuple[str, dict[str, str]] = ("path", {})
    for form in reversed(names.FORMS):  # On a tie, paths are preferred: they determine more.
        # Object checkpoints may store a variable's name as well as its path.
        use_names = variable_names and form != "path"
        name_of = variable_names if use_names else {key: key for key in shapes}
        by_name = canonical(
            form, [name for key, name in name_of.items() if not _is_slot(key, shapes)]
        )
        keys = {by_name[name]: key for key, name in name_of.items() if name in by_name}
        if any(name.startswith(("base_model", "resnet", "model/resnet_model")) for name in keys):
            best = max(best, (form, keys), key=lambda candidate: len(candidate[1]))
    return best


def _variable_names(reader: Any) -> dict[str, str]:
    """Returns the variable's name for each key of an object checkpoint."""
    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    graph.ParseFromString(reader.get_tensor(_GRAPH))
    attributes = (attribute for node in graph.nodes for attribute in node.attributes)
    return {a.checkpoint_key: a.full_name.split(":")[0] for a in attributes if a.full_name}


def _is_slot(name: str, shapes: Mapping[str, Any]) -> bool:
    """Returns whether a variable belongs to an optimizer.

    TF2 marks such variables; in TF1 their names begin with the name of a weight.
    """
    if ".OPTIMIZER_SLOT" in name or name.startswith("optimizer/"):
        return True
    return os.path.dirname(name) in shapes or bool(re.fullmatch(r"beta[12]_power", name))


def _locate(path: str, depth: int) -> tuple[str, str | None] | None:
    """Returns the prefix of a checkpoint, and the folder of its SavedModel, if it has one."""
    if not tf.io.gfile.isdir(path):
        if os.path.basename(path) == _SAVED_MODEL:
            return _locate(os.path.dirname(path), depth)
        prefix = re.sub(r"\.(index|data-\d+-of-\d+)$", "", path)
        return _with_saved_model(prefix) if tf.io.gfile.exists(prefix + _INDEX) else None
    entries = storage.names_in(path)
    if _SAVED_MODEL in entries:
        return os.path.join(path, "variables", "variables"), path
    indexes = [entry.removesuffix(_INDEX) for entry in entries if entry.endswith(_INDEX)]
    if indexes:
        return _with_saved_model(os.path.join(path, max(indexes, key=_last_number)))
    return _in_subfolders(path, entries, depth - 1) if depth else None


def _with_saved_model(prefix: str) -> tuple[str, str | None]:
    """Returns the prefix, and the folder of the SavedModel whose variables it is, if any."""
    folder = os.path.dirname(os.path.dirname(prefix))
    in_variables = os.path.basename(os.path.dirname(prefix)) == "variables"
    if in_variables and tf.io.gfile.exists(os.path.join(folder, _SAVED_MODEL)):
        return prefix, folder
    return prefix, None


def _last_number(name: str) -> int:
    numbers = re.findall(r"\d+", name)
    return int(numbers[-1]) if numbers else -1


def _in_subfolders(path: str, entries: list[str], depth: int) -> tuple[str, str | None] | None:
    """Searches the subfolders of a folder."""
    usual = [entry for entry in _USUAL if entry in entries]
    steps = sorted((entry for entry in entries if entry.isdigit()), key=int, reverse=True)
    for entry in [*usual, *steps]:
        located = _locate_folder(os.path.join(path, entry), depth)
        if located is not None:
            return located
    others = [entry for entry in sorted(entries) if entry not in usual and entry not in steps]
    models = {
        entry: located
        for entry in others
        if (located := _locate_folder(os.path.join(path, entry), depth)) is not None
    }
    if len(models) > 1:
        raise errors.UserError(
            f"{path} contains {len(models)} models ({', '.join(list(models)[:4])}); name one of "
            "them."
        )
    return next(iter(models.values()), None)


def _locate_folder(path: str, depth: int) -> tuple[str, str | None] | None:
    return _locate(path, depth) if tf.io.gfile.isdir(path) else None


def _flags_beside(folder: str) -> dict[str, Any]:
    """Returns the flags stored in a folder or one of the two above it."""
    for _ in range(3):
        path = os.path.join(folder, "flags.json")
        if tf.io.gfile.exists(path):
            try:
                with tf.io.gfile.GFile(path) as file:
                    flags = json.loads(file.read())
            except (json.JSONDecodeError, UnicodeDecodeError, tf.errors.OpError):
                return {}
            return flags if isinstance(flags, dict) else {}
        folder = os.path.dirname(folder)
    return {}


def _unreadable(origin: str, error: Exception) -> errors.UserError:
    return errors.UserError(
        f"{origin} cannot be read ({text.reason(error)}); copy it again, or name another."
    )
