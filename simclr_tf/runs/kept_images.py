"""Decides whether a run keeps its training images in memory, see `data.in_memory`."""

from __future__ import annotations

from simclr_tf import config as config_lib
from simclr_tf import host_memory, text
from simclr_tf.data import in_memory
from simclr_tf.runs import dataset

# Decoded images that take less than this fraction of the free memory are kept without being asked
# for, as nobody misses the memory.
_SMALL_FRACTION = 0.1


def choose(config: config_lib.Config, data: dataset.Data, *, images: int) -> str | None:
    """Returns how the training images are kept in memory; None if they are read in every epoch.

    The batches are the same. Small images of one size are kept decoded. Where their sizes are
    unknown, as in a folder, or where other processes make the input, only --cache_dataset keeps
    images.

    Args:
        config: the settings.
        data: the data set, without the images that are left out of training.
        images: how many images are still to be seen, those of further epochs counted again.
    """
    if images <= 0:
        return None
    source, split = data.source, data.train_split
    if config.cache_dataset:
        how = "decoded" if in_memory.has_one_size(source) else "encoded"
        return f"kept in memory {how} (--cache_dataset)"
    if config.samples_per_class or not in_memory.has_one_size(source):
        return None
    if not dataset.makes_input(config) or images <= source.num_examples(split):
        return None  # In a single epoch each image is decoded once in any case.
    needed, free = in_memory.num_bytes(source, split), host_memory.free()
    if needed >= _SMALL_FRACTION * free:
        return None
    return f"kept in memory decoded, at most {text.gib(needed)} of {text.gib(free)} free"
