"""Finds the images that --input names, and reads those of a shard."""

from __future__ import annotations

from collections.abc import Iterator
import functools
import glob
import itertools
import os
from typing import NamedTuple

import tensorflow as tf

from simclr_tf import errors, paths, text
from simclr_tf.bulk import plan
from simclr_tf.data import parts, sources

TFDS = "tfds:"
# What an image raises that is not there or not accessible. Other errors, as of a network, may pass,
# so they end the work on the shard, which is then repeated.
_UNREADABLE = (
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.FailedPreconditionError,
)


class Image(NamedTuple):
    """An image of a shard.

    Attributes:
        name: its name.
        encoded: its content; None if it cannot be read.
        reason: why it cannot be read; None if it can.
    """

    name: str
    encoded: bytes | None
    reason: str | None = None


def find(
    pattern: str, *, shard_size: int, data_dir: str | None, output: str
) -> Iterator[plan.Content]:
    """Yields the images of each shard, always in the same order.

    Args:
        pattern: a pattern of paths, or `tfds:NAME/SPLIT`.
        shard_size: images of a shard; the last one may have fewer.
        data_dir: where tensorflow-datasets has its data; None for its default.
        output: folder of the output, which must not be among the inputs.

    Raises:
        UserError: if there are no such images.
    """
    if pattern.startswith(TFDS):
        yield from _of_dataset(pattern, shard_size, data_dir)
        return
    if data_dir is not None:
        raise errors.UserError(
            f"--data_dir={data_dir} has no effect beside the paths of --input={pattern}; leave it "
            "out."
        )
    found = _files(pattern)
    folder = f"{paths.absolute(output).rstrip('/')}/"
    if any(paths.absolute(path).startswith(folder) for path in found):
        raise errors.UserError(
            f"--input={pattern} matches files in --output={output}; name another folder."
        )
    for start in range(0, len(found), shard_size):
        yield plan.Content(tuple(found[start : start + shard_size]))


def _files(pattern: str) -> list[str]:
    """Returns the paths of the files that match, in the order of their code points."""
    if paths.scheme(pattern) is None:
        found = glob.glob(os.path.expanduser(pattern), recursive=True)
        found = [path for path in found if os.path.isfile(path) or os.path.islink(path)]
    elif "**" in pattern:
        raise errors.UserError(
            f"--input={pattern} is remote, where ** is not supported; write one * for each folder."
        )
    else:
        remote = tf.io.gfile.glob(pattern)
        found = [path for path in remote if not tf.io.gfile.isdir(path)]
    if not found:
        remedy = "check it, and quote it so that the shell does not expand it"
        if tf.io.gfile.isdir(pattern):
            remedy = f"it is a folder: write --input='{pattern.rstrip('/')}/**/*.jpg'"
        raise errors.UserError(f"--input={pattern} matches no files; {remedy}.")
    return sorted(set(found))


def _of_dataset(pattern: str, shard_size: int, data_dir: str | None) -> Iterator[plan.Content]:
    name, _, split = pattern.removeprefix(TFDS).rpartition("/")
    if not name or not split:
        raise errors.UserError(
            f"--input={pattern} must name a data set and a split, as in tfds:cifar10/test."
        )
    source = _open(name, data_dir)
    for part in parts.of_split(source, split, shard_size):
        yield plan.Content(tuple(source.example_names(part)), name, part)


@functools.lru_cache(maxsize=1)
def _open(dataset: str, data_dir: str | None) -> sources.Source:
    """Opens a data set, once in each process."""
    return sources.open_source(dataset, data_dir=data_dir, seed=0)


def printable(identifier: str) -> str:
    r"""Returns a name in which bytes that are not UTF-8 are written as in caf\xe9.jpg."""
    encoded = identifier.encode("utf-8", "surrogateescape")
    return encoded.decode("utf-8", "backslashreplace")


def read(content: plan.Content, *, base: str, data_dir: str | None) -> Iterator[Image]:
    """Yields the images of a shard.

    Args:
        content: the images.
        base: the folder that relative paths start from.
        data_dir: as for `find`.
    """
    if content.dataset is None:
        yield from (_read_file(path, base) for path in content.ids)
        return
    assert content.part is not None
    examples = _open(content.dataset, data_dir).examples(content.part).as_numpy_iterator()
    for name, example in itertools.zip_longest(content.ids, examples):
        if example is None or name != example["name"].decode():
            raise errors.UserError(
                f"The files of {content.dataset} have other images in {content.part} than when "
                "the extraction was begun; restore them, or name another --output."
            )
        yield Image(name, example["image"])


def _read_file(path: str, base: str) -> Image:
    if printable(path) != path:
        return Image(path, None, "its name is not UTF-8; rename it")
    try:
        with tf.io.gfile.GFile(os.path.join(base, path), "rb") as file:
            return Image(path, file.read())
    except _UNREADABLE as error:
        return Image(path, None, f"it cannot be read ({text.reason(error)})")
