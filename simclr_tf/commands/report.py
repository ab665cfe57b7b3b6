"""The report command: writes report.html of a run, or one page of several runs."""

from __future__ import annotations

import os

import tensorflow as tf

from simclr_tf import config as config_lib
from simclr_tf import console, errors, paths, storage, text
from simclr_tf.commands import compare
from simclr_tf.report import run_files, run_page, side_by_side
from simclr_tf.runs import directory


def report(config: config_lib.Config) -> None:
    """Writes the report of the run in --model_dir, or that of --runs side by side.

    Args:
        config: the settings.

    Raises:
        UserError: if there is no such run, or the page cannot be written.
    """
    if config.runs is not None:
        path = write_side_by_side(config)
    elif config.model_dir is not None:
        path = write(config.model_dir)
    else:
        raise errors.UserError(
            "--mode=report has no run; set --model_dir to a run directory, or --runs to several."
        )
    console.say(f"Report: {path}")


def write(model_dir: str) -> str:
    """Writes report.html into a run directory, from the files in it.

    Args:
        model_dir: the run directory.

    Returns:
        The path of the page.

    Raises:
        UserError: if there is no run, or the page cannot be written.
    """
    path = os.path.join(model_dir, run_files.REPORT)
    storage.replace(path, run_page.render(run_files.read(model_dir)))
    return path


def write_after_run(model_dir: str) -> None:
    """Writes the report at the end of another command; a failure is a warning.

    Args:
        model_dir: the run directory.
    """
    try:
        path = write(model_dir)
    except Exception as error:  # Whatever it is, the results of the run are written.
        console.warn(
            f"The report could not be written ({text.reason(error)}); --mode=report "
            f"--model_dir={model_dir} tries again."
        )
    else:
        console.say(f"Report: {path}")


def write_side_by_side(config: config_lib.Config) -> str:
    """Writes report.html of several runs to --model_dir, or to the current directory.

    Args:
        config: the settings, with the run directories.

    Returns:
        The path of the page.

    Raises:
        UserError: if a folder has no run, or that of the page is a run directory itself.
    """
    for folder in text.listed(config.runs):
        run_files.check_is_run(paths.absolute(folder))
    folders = compare.folders_of(config)
    output = config.model_dir or "."
    if run_files.is_run(output):
        raise errors.UserError(
            f"{'The current directory' if config.model_dir is None else f'--model_dir={output}'} "
            f"is a run directory, whose {run_files.REPORT} is that of the run; set --model_dir to "
            "another folder."
        )
    runs = [run_files.read(folder) for folder in folders]
    directory.ensure_writable(output)
    comparison, why_not, picture = None, "", None
    try:
        measured = compare.measure(folders, seed=config.seed)
    except errors.UserError as error:
        why_not = str(error)
        console.say(f"There is no paired test: {why_not}")
    else:
        comparison = measured.to_json()
        drawn = compare.draw_disagreements(measured, side_by_side.names_of(folders))
        picture = None if drawn is None else tf.io.encode_png(drawn).numpy()
    path = os.path.join(output, run_files.REPORT)
    storage.replace(path, side_by_side.render(runs, comparison, why_not, picture))
    return path
