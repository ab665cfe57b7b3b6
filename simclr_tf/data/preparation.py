"""Downloads and prepares a data set of tensorflow-datasets, and checks the prepared files."""

from __future__ import annotations

import contextlib
import io
import os
import re
import time
from typing import Any

import tensorflow as tf
from tensorflow_datasets.core.download import resource

from simclr_tf import errors, storage
from simclr_tf.data import connection, digits


def prepare(dataset: str, builder: Any) -> list[str]:
    """Downloads and prepares a data set that is not yet on disk.

    Args:
        dataset: its name, as the user wrote it.
        builder: its builder.

    Returns:
        Notes for the user.

    Raises:
        errors.UserError: if that fails, or prepared files are missing.
    """
    if (builder.data_path / "dataset_info.json").exists():
        _check_files(dataset, builder)
        return []
    if builder.data_path.exists():
        raise errors.UserError(
            f"The data set in {builder.data_dir!r} is incomplete; delete the folder, so that "
            f"{dataset!r} is prepared again."
        )
    unreachable = connection.why_unreachable(_downloads(builder))
    if unreachable is not None:
        raise errors.UserError(
            f"The data set {dataset!r} is not prepared in {str(builder.data_dir_root)!r}, and it "
            f"cannot be downloaded, because {unreachable}; connect this machine to the network, or "
            "copy the prepared data set from another machine into that folder."
        )
    started = time.monotonic()
    # The embedded data set takes seconds; the progress of a download is shown.
    hidden = io.StringIO()
    try:
        with contextlib.ExitStack() as stack:
            if isinstance(builder, digits.Digits):
                stack.enter_context(contextlib.redirect_stdout(hidden))
                stack.enter_context(contextlib.redirect_stderr(hidden))
            builder.download_and_prepare()
    except Exception as error:  # The code of hundreds of data sets may raise anything.
        raise errors.UserError(
            f"The data set {dataset!r} is not prepared in {str(builder.data_dir_root)!r}, and "
            f"preparing it failed ({reason(error)}); fix that, or choose a data "
            "directory where it is prepared or that can be written."
        ) from error
    seconds = time.monotonic() - started
    return [f"Prepared the data set {dataset!r} in {builder.data_dir!r} ({seconds:.0f} s)."]


def _downloads(builder: Any) -> list[str]:
    """Returns the addresses of the files that preparing a data set needs from the network.

    None are known of a data set whose files the user downloads, or whose code lists no checksums.
    If some files were downloaded before, those may be all that it needs.
    """
    known = builder.url_infos or {}
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        return []
    folders = [
        os.path.join(builder.data_dir_root, "downloads", name)
        for name in ("", "manual", builder.name)
    ]
    present = {name for folder in folders for name in storage.names_in(folder)}
    # tensorflow-datasets names a file after its address and checksum; the user may have put it
    # into downloads/manual under its own name.
    names = {resource.get_dl_fname(url, info.checksum) for url, info in known.items()}
    names |= {info.filename for info in known.values()}
    return [] if names & present else list(known)


def _check_files(dataset: str, builder: Any) -> None:
    """Refuses a prepared data set that lacks files."""
    info = builder.info
    wanted = {os.path.basename(path) for split in info.splits.values() for path in split.filenames}
    missing = sorted(wanted - set(tf.io.gfile.listdir(builder.data_dir)))
    if missing:
        raise errors.UserError(
            f"The data set {dataset!r} in {builder.data_dir!r} lacks {len(missing)} of its "
            f"{len(wanted)} files (such as {missing[0]}); copy it again, or delete the folder so "
            "that it is prepared again."
        )


def reason(error: Exception) -> str:
    """Returns an error of tensorflow-datasets, which may have many lines, as part of a sentence."""
    message = " ".join(str(error).split())
    message = re.sub(
        r"^Failed to construct .*?\}\": |^Error parsing split .*?datasets/splits ", "", message
    )
    message = message[:1000] + "..." if len(message) > 1000 else message.rstrip(".")
    return message or type(error).__name__
