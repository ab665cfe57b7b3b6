"""Where the labels of the user's images come from: what --dataset and --labels may be."""

from __future__ import annotations

IMAGE_FOLDER = "image_folder"
# --dataset=csv:FILE is the image folder that contains FILE, with the labels in FILE.
CSV = "csv:"
# Values of --labels that are not the path of a file.
FOLDERS, NONE = "folders", "none"
# How the path of a file with labels ends.
SUFFIXES = (".csv", ".tsv", ".txt")


def is_folder(dataset: str) -> bool:
    """Returns whether a data set is a folder of the user's images."""
    return dataset == IMAGE_FOLDER or dataset.startswith(CSV)


def resolve(dataset: str, labels: str) -> tuple[str, str]:
    """Returns a data set and its labels, with `csv:FILE` as an image folder with a file of labels.

    Args:
        dataset: name of the data set.
        labels: FOLDERS, NONE or the path of a file.
    """
    return (IMAGE_FOLDER, dataset[len(CSV) :]) if dataset.startswith(CSV) else (dataset, labels)


def is_file(labels: str) -> bool:
    """Returns whether labels come from a file."""
    return labels not in (FOLDERS, NONE)
