"""Imported before a program: its runs leave out what costs seconds beside training and evaluation.

These are the SavedModel, the image of the views and the report, and what `quick_program` leaves
out. See `program_server.SETUP`.
"""

import quick_program  # noqa: F401

from simclr_tf.commands import report, train
from simclr_tf.serving import export

export.export = lambda *_, **__: ""
train._show_views = lambda *_: None
report.write_after_run = lambda model_dir: None
