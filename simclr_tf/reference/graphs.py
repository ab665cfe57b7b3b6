"""Reads from the graph of a SavedModel what its weights do not determine."""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses
from typing import Any

from google.protobuf import message
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2


@dataclasses.dataclass(frozen=True)
class GraphInfo:
    """Properties of a graph.

    Attributes:
        pools: whether it contains average pooling, as in the shortcuts of ResNet-D.
        stage: number of dense layers between the encoder and the linear head; None if there is no
            linear head in the graph.
    """

    pools: bool
    stage: int | None


def read(path: str) -> GraphInfo | None:
    """Reads a SavedModel's graph, of TF1 or TF2.

    Args:
        path: path of saved_model.pb.

    Returns:
        Its properties; None if the file cannot be read as a graph.
    """
    saved = saved_model_pb2.SavedModel()
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            saved.ParseFromString(file.read())
    except (message.DecodeError, tf.errors.OpError):
        return None
    graphs: list[Any] = []
    for meta_graph in saved.meta_graphs:
        graphs.append(meta_graph.graph_def.node)
        graphs += [function.node_def for function in meta_graph.graph_def.library.function]
    stages = [stage for stage in map(_stage, graphs) if stage is not None]
    pools = any(node.op == "AvgPool" for nodes in graphs for node in nodes)
    return GraphInfo(pools, stages[0] if stages else None)


def _stage(nodes: Iterable[Any]) -> int | None:
    """Returns the number of matrix products on which that of the linear head depends."""
    by_name = {node.name: node for node in nodes}
    heads = [
        node for node in by_name.values() if node.op == "MatMul" and "head_supervised" in node.name
    ]
    if not heads:
        return None
    seen: set[str] = set()
    waiting = list(heads[0].input)
    while waiting:
        name = waiting.pop().lstrip("^").split(":")[0]
        if name in by_name and name not in seen:
            seen.add(name)
            waiting += by_name[name].input
    return sum(by_name[name].op == "MatMul" for name in seen)
