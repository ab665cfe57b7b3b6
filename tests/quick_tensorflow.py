"""Lets TensorFlow trace and start graphs faster, for programs that take a few steps."""

from __future__ import annotations

import gc

import tensorflow as tf
from tensorflow.python.client import pywrap_tf_session
from tensorflow.python.ops import gen_resource_variable_ops
from tensorflow.python.util import tf_stack

# What TensorFlow does by itself.
EXTRACT_STACK, SET_STACK = tf_stack.extract_stack, pywrap_tf_session.TF_SetOpStackTrace
_VAR_HANDLE_OP = gen_resource_variable_ops.var_handle_op


def apply() -> None:
    """Leaves out what pays for itself after hundreds of steps, or what only errors need."""
    # Rewriting graphs takes longer than the few steps that it speeds up.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    # TensorFlow stores the Python stack of every operation, for messages of errors. That takes a
    # sixth of the time to trace a graph below pytest.
    tf_stack.extract_stack = lambda stacklevel=1: None
    pywrap_tf_session.TF_SetOpStackTrace = lambda operation, stack: None
    # TensorFlow makes a kernel for every name of a variable, and Keras gives each network new
    # names. A quarter of the time to build a network goes there. The name is for messages of errors
    # only.
    gen_resource_variable_ops.var_handle_op = lambda *args, **named: _VAR_HANDLE_OP(
        *args, **{**named, "debug_name": ""}
    )


def spare_collector() -> None:
    """Lets the garbage collector look at fewer objects, and less often.

    What the imports made stays; looking at it at every collection would take seconds, and would
    copy it in every process that is forked. Graphs are of many objects, few of which are garbage
    while they are traced.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)
