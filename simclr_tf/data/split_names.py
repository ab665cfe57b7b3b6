"""Names of folders that are splits: which there are, and which of them mean the same."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
import re

from simclr_tf import errors

# Names of one split, the usual one first.
_TRAIN_NAMES = (("train", "training"), ("unlabeled", "unlabelled", "unsupervised"), ("extra",))
_EVAL_NAMES = (
    ("validation", "val", "valid"),
    ("test", "testing"),
    ("eval", "evaluation"),
    ("dev",),
)
_USUAL = {name: names[0] for names in (*_TRAIN_NAMES, *_EVAL_NAMES) for name in names}
# What may follow such a name, as in test_set and val2017.
_SUFFIX = re.compile(r"[-_ ]?(set|data|images|split|(19|20)\d\d)$")
# Names of evaluation splits, the preferred one first, and the one that `holdout` may have to use.
_EVALUATED = (
    *("validation", "test", "val", "valid", "testing", "eval", "evaluation", "dev"),
    "held_out",
)


def is_split(folder: str) -> bool:
    """Returns whether a folder is named as a split, as train, VAL, test_set or Train2017."""
    return _word(folder) in _USUAL


def is_evaluation(split: str) -> bool:
    """Returns whether a split is named as one to evaluate on."""
    return _word(split) in _EVALUATED


def of_folder(folder: str) -> str:
    """Returns the name of the split that a folder contains.

    It is that of the folder, in lower case if it is named as a split, and with an underscore for
    what tensorflow-datasets does not allow in the name of a split.
    """
    name = re.sub(r"[^\w-]+", "_", folder)
    return name.lower() if is_split(folder) else name


def of_folders(root: str, folders: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Returns folder -> the name of its split, and sentences on names that differ.

    Args:
        root: the folder that holds them, for messages.
        folders: their names.

    Raises:
        errors.UserError: if two folders are the same split.
    """
    split_of: dict[str, str] = {}
    folder_of: dict[str, str] = {}
    for folder in folders:
        split = split_of[folder] = of_folder(folder)
        if folder_of.setdefault(split, folder) != folder:
            raise errors.UserError(
                f"The folder {root!r} holds {folder_of[split]} and {folder}, which are both the "
                f"split {split!r}; merge them, or rename one."
            )
    notes = []
    for folder, split in sorted(split_of.items()):
        also = split != "train" and find("train", folder_of) == split
        if also or folder != split:
            end = ", which is also found as 'train'" if also else ""
            notes.append(f"The folder {folder} is the split {split!r}{end}.")
    return split_of, notes


def find(name: str, splits: Collection[str]) -> str | None:
    """Returns the only split that a name may mean, None without one.

    That is the split of this name; or else the one whose name differs in its case; or else the one
    whose name means the same, as `training` and `train`.
    """
    if name in splits:
        return name
    for form in (str.lower, usual):
        matches = [split for split in splits if form(split) == form(name)]
        if len(matches) == 1:
            return matches[0]
    return None


def resolve(split: str, splits: Collection[str]) -> str:
    """Returns a split with the names that a data set has, such as training[:10%] for train[:10%].

    Args:
        split: in the syntax of tensorflow-datasets.
        splits: the splits of the data set.
    """
    terms = [term.partition("[") for term in split.split("+")]
    return "+".join(
        f"{find(name.strip(), splits) or name}{bracket}{rest}" for name, bracket, rest in terms
    )


def unknown(split: str, splits: Collection[str]) -> list[str]:
    """Returns the names in a split, see `resolve`, that the data set does not have."""
    names = {term.split("[")[0].strip() for term in resolve(split, splits).split("+")}
    return sorted(names - set(splits) - {"all"})


def listed(splits: Mapping[str, int]) -> str:
    """Returns the splits with their sizes, for messages."""
    return ", ".join(f"{name} ({count:,})" for name, count in splits.items())


def usual(split: str) -> str:
    """Returns the usual name of a split: train for training; an unknown name in lower case."""
    return _USUAL.get(_word(split), split.lower())


def for_evaluation(splits: Collection[str]) -> list[str]:
    """Returns the splits that are named as ones to evaluate on, the preferred one first."""
    named = [split for split in splits if is_evaluation(split)]
    return sorted(named, key=lambda split: (_EVALUATED.index(_word(split)), split))


def _word(name: str) -> str:
    """Returns the name of a split or a folder in lower case, without a suffix."""
    lower = name.lower()
    return _SUFFIX.sub("", lower) or lower
