"""Finding what google-research/simclr wrote, told by its content, and reading it without its code.

Three forms: a TF2 SavedModel, the form of the published v1 and v2 models; an object checkpoint of
its TF2 training; a name-based checkpoint of its TF1 code, which its hub modules hold too.
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

from simclr_tf import errors, storage
from simclr_tf.reference import graphs, names

_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_SAVED_MODEL = "saved_model.pb"
_INDEX = ".index"
# Folders of a run of the reference in which weights lie, the first that exists is looked into.
_USUAL = ("saved_model", "hub", "checkpoint", "checkpoints")
# Where the names of each form begin, whatever a checkpoint has in front of them.
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
_LEAVES = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")


@dataclasses.dataclass(frozen=True)
class Stored:
    """Weights on disk.

    Attributes:
        origin: the checkpoint or the folder of the SavedModel.
        kind: what it is, for people.
        form: of its names, one of `names.FORMS`.
        shapes: of the weights, by name as `canonical` has it.
        slots: names of what belongs to an optimizer.
        others: names of the rest.
        graph: what the graph tells, if there is one.
        flags: of the run, from the flags.json that the reference writes; empty if there is none.
    """

    origin: str
    kind: str
    form: str
    shapes: Mapping[str, tuple[int, ...]]
    slots: tuple[str, ...]
    others: tuple[str, ...]
    graph: graphs.Facts | None
    flags: Mapping[str, Any]
    _keys: Mapping[str, str]
    _reader: Any

    def read(self, name: str) -> np.ndarray:
        """Returns a weight by its canonical name.

        Raises:
            UserError: if the file is damaged.
        """
        try:
            return self._reader.get_tensor(self._keys[name])
        except (tf.errors.OpError, IndexError) as error:
            raise _damaged(self.origin, error) from error


def canonical(form: str, given: Iterable[str]) -> dict[str, str]:
    """Makes names comparable that differ by where Keras's counting began.

    A network that is not the first of its process has higher numbers, and batch norm has another
    name with --global_bn=False.

    Args:
        form: one of `names.FORMS`.
        given: all names of a checkpoint.

    Returns:
        The canonical name of each that looks like a weight of this form, by the given name.
    """
    found = {}
    for name in given:
        beginning = _BEGINNING[form].search(name)
        parts = name.removesuffix(_VALUE).split("/")
        if beginning and parts[-1] in _LEAVES:
            found[name] = [beginning[1], *parts[name.count("/", 0, beginning.end()) :]]
    if form == "path":  # Numbers are places there, not counts.
        return {name: "/".join(["model", *parts]) for name, parts in found.items()}
    first: dict[tuple[str, str], int] = {}
    for parts in found.values():
        for scope, kind, number in _numbers(form, parts):
            first[scope, kind] = min(number, first.get((scope, kind), number))
    return {name: "/".join(_renumbered(form, parts, first)) for name, parts in found.items()}


@functools.cache
def _numbered(part: str) -> tuple[str, int] | None:
    """Splits the name of a layer that Keras numbers; None for another part of a name."""
    match = _NUMBERED.fullmatch(part)
    return (match[1].removeprefix("sync_"), int(match[2] or 0)) if match else None


def _numbers(form: str, parts: list[str]) -> Iterable[tuple[str, str, int]]:
    """Yields what is counted, where counting begins anew, and the number."""
    # TF1 counts in each layer of a head anew.
    scope = "/".join(parts[:2]) if form == "tf1" and parts[0] != "base_model" else parts[0]
    for kind, number in filter(None, map(_numbered, parts)):
        yield scope, kind, number


def _renumbered(form: str, parts: list[str], first: dict[tuple[str, str], int]) -> Iterable[str]:
    numbers = iter(_numbers(form, parts))
    for part in parts:
        if _numbered(part):
            scope, kind, number = next(numbers)
            yield f"{kind}_{number - first[scope, kind]}"
        else:
            yield part


def find(path: str) -> Stored | None:
    """Opens the weights that a path leads to, if the reference wrote them.

    Args:
        path: a checkpoint (also by one of its files), the folder of a SavedModel, or a folder that
            holds such, as a run directory of the reference.

    Returns:
        The weights; None if nothing there has the reference's names.

    Raises:
        UserError: if it is damaged, or a folder holds several models.
    """
    located = _locate(path.rstrip("/"), depth=3)
    if located is None:
        return None
    prefix, saved_model = located
    try:
        reader = tf.train.load_checkpoint(prefix)
        shapes = reader.get_variable_to_shape_map()
        called = _called(reader) if _GRAPH in shapes else {}
    except (tf.errors.OpError, IndexError, message.DecodeError) as error:
        raise _damaged(prefix, error) from error
    form, keys = _best_form(shapes, called)
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
    taken = set(keys.values())
    rest = sorted(set(shapes) - taken - {_GRAPH})
    slots = tuple(name for name in rest if _is_slot(name, shapes))
    kind = "TF1 checkpoint" if form == "tf1" else "TF2 checkpoint"
    return Stored(
        origin=saved_model or prefix,
        kind=kind.replace("checkpoint", "SavedModel") if saved_model else kind,
        form=form,
        shapes={name: tuple(shapes[key]) for name, key in keys.items()},
        slots=slots,
        others=tuple(name for name in rest if name not in slots),
        graph=graphs.facts_of(os.path.join(saved_model, _SAVED_MODEL)) if saved_model else None,
        flags=_flags_beside(saved_model or os.path.dirname(prefix)),
        _keys=keys,
        _reader=reader,
    )


def _best_form(shapes: Mapping[str, Any], called: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Returns the form in which most weights have names, and their keys by canonical name."""
    best: tuple[str, dict[str, str]] = ("path", {})
    for form in reversed(names.FORMS):  # Of two, the path tells more.
        # Object checkpoints may know a variable's name beside its path.
        offered = called if called and form != "path" else {key: key for key in shapes}
        found = canonical(
            form, [name for key, name in offered.items() if not _is_slot(key, shapes)]
        )
        keys = {found[name]: key for key, name in offered.items() if name in found}
        if any(name.startswith(("base_model", "resnet", "model/resnet_model")) for name in keys):
            best = max(best, (form, keys), key=lambda candidate: len(candidate[1]))
    return best


def _called(reader: Any) -> dict[str, str]:
    """Returns the variable's name for each key of an object checkpoint."""
    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    graph.ParseFromString(reader.get_tensor(_GRAPH))
    attributes = (attribute for node in graph.nodes for attribute in node.attributes)
    return {a.checkpoint_key: a.full_name.split(":")[0] for a in attributes if a.full_name}


def _is_slot(name: str, shapes: Mapping[str, Any]) -> bool:
    """Tells what an optimizer keeps: by TF2's marks, or in TF1 what hangs on a weight's name."""
    if ".OPTIMIZER_SLOT" in name or name.startswith("optimizer/"):
        return True
    return os.path.dirname(name) in shapes or bool(re.fullmatch(r"beta[12]_power", name))


def _locate(path: str, depth: int) -> tuple[str, str | None] | None:
    """Finds a checkpoint's prefix and the SavedModel's folder, if it belongs to one."""
    if not tf.io.gfile.isdir(path):
        if os.path.basename(path) == _SAVED_MODEL:
            return _locate(os.path.dirname(path), depth)
        prefix = re.sub(r"\.(index|data-\d+-of-\d+)$", "", path)
        return _of_prefix(prefix) if tf.io.gfile.exists(prefix + _INDEX) else None
    entries = [entry.rstrip("/") for entry in tf.io.gfile.listdir(path)]
    if _SAVED_MODEL in entries:
        return os.path.join(path, "variables", "variables"), path
    indexes = [entry.removesuffix(_INDEX) for entry in entries if entry.endswith(_INDEX)]
    if indexes:
        return _of_prefix(os.path.join(path, max(indexes, key=_last_number)))
    return _below(path, entries, depth - 1) if depth else None


def _of_prefix(prefix: str) -> tuple[str, str | None]:
    """Knows the variables of a SavedModel as such."""
    folder = os.path.dirname(os.path.dirname(prefix))
    whole = os.path.basename(os.path.dirname(prefix)) == "variables"
    if whole and tf.io.gfile.exists(os.path.join(folder, _SAVED_MODEL)):
        return prefix, folder
    return prefix, None


def _last_number(name: str) -> int:
    found = re.findall(r"\d+", name)
    return int(found[-1]) if found else -1


def _below(path: str, entries: list[str], depth: int) -> tuple[str, str | None] | None:
    """Looks into the folders of a folder."""
    usual = [entry for entry in _USUAL if entry in entries]
    steps = sorted((entry for entry in entries if entry.isdigit()), key=int, reverse=True)
    for entry in [*usual, *steps]:
        found = _locate_folder(os.path.join(path, entry), depth)
        if found is not None:
            return found
    others = [entry for entry in sorted(entries) if entry not in usual and entry not in steps]
    found_in = {
        entry: found
        for entry in others
        if (found := _locate_folder(os.path.join(path, entry), depth)) is not None
    }
    if len(found_in) > 1:
        raise errors.UserError(
            f"{path} holds {len(found_in)} models ({', '.join(list(found_in)[:4])}); name one of "
            "them."
        )
    return next(iter(found_in.values()), None)


def _locate_folder(path: str, depth: int) -> tuple[str, str | None] | None:
    return _locate(path, depth) if tf.io.gfile.isdir(path) else None


def _flags_beside(folder: str) -> dict[str, Any]:
    """Returns the flags of the run that wrote a folder, or one above it."""
    for _ in range(3):
        path = os.path.join(folder, "flags.json")
        if tf.io.gfile.exists(path):
            try:
                with tf.io.gfile.GFile(path) as file:
                    flags = json.loads(file.read())
            except (json.JSONDecodeError, UnicodeDecodeError):
                return {}
            return flags if isinstance(flags, dict) else {}
        folder = os.path.dirname(folder)
    return {}


def _damaged(origin: str, error: Exception) -> errors.UserError:
    return errors.UserError(
        f"{origin} cannot be read ({storage.reason(error)}); copy it again, or name another."
    )
