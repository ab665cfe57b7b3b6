"""Turns serialized HLO into StableHLO, for the compilers of JAX. Needs JAX, not TensorFlow."""

from __future__ import annotations

from typing import Any

from jaxlib import _jax
from jaxlib.mlir import ir


def parse(serialized_hlo: bytes) -> Any:
    """Returns the StableHLO module of an HLO module, in the current MLIR context.

    Args:
        serialized_hlo: the module, as step_hlo.py writes it.
    """
    module = ir.Module.parse(_jax.mlir.hlo_to_stablehlo(serialized_hlo))
    copies = []

    def collect(operation: Any) -> Any:
        if operation.name == "mhlo.copy":  # StableHLO has no copies, which change nothing.
            copies.append(operation.operation)
        return ir.WalkResult.ADVANCE

    module.operation.walk(collect)
    for copy in copies:
        copy.results[0].replace_all_uses_with(copy.operands[0])
        copy.erase()
    return module
