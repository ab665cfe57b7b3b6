"""Measures how well numbers without labels rank runs by their linear accuracy.

    python benchmarks/label_free.py RUN RUN ...       reads finished runs, and prints a table
    python benchmarks/label_free.py --train           trains a grid of runs on digits
    python benchmarks/label_free.py --train --write   also updates docs/evaluation.md
    python benchmarks/label_free.py --train --json    also prints one JSON object last
    python benchmarks/label_free.py --smallest        trains two tiny runs, in seconds

For each of RankMe, LiDAR and view retrieval, the table has Spearman's rank correlation with the
accuracy of the linear evaluation, and the accuracy of the run that the number would choose. Of a
finished run, result.json has all of these if it was evaluated with --evaluations=label_free.

The grid has all combinations of two augmentations, learning rates and lengths. Each is trained and
evaluated by `run.py`, in its own run directory. Finished runs are read, and interrupted runs are
resumed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

from rich.console import Console
from rich.table import Table
from scipy import stats

from benchmarks import pages

_ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
_PAGE = os.path.join(_ROOT, "docs", "evaluation.md")
_ACCURACY = "linear_eval/top_1_accuracy"
# Name of a number in result.json -> its title.
NUMBERS = {
    "label_free/rankme": "RankMe",
    "label_free/lidar": "LiDAR",
    "label_free/view_retrieval": "view retrieval",
}
# Setting -> its two values, over those of the recipe of the digits.
GRID = {
    "augmentation": ("crop,flip,color", "crop"),
    "learning_rate": ("0.02", "0.2"),
    "train_epochs": ("1", "3"),
}
_FLAGS = [
    f"--flagfile={os.path.join(_ROOT, 'flags', 'recipes', 'digits.flags')}",
    "--evaluations=label_free",
]
# These override the flags above.
_SMALLEST_FLAGS = [
    "--train_split=train[:64]",
    "--eval_split=test[:64]",
    "--image_size=8",
    "--resnet_depth=8",
    "--proj_out_dim=8",
    "--train_batch_size=32",
    "--augmentation=crop,flip",
    "--warmup_epochs=0",
    "--train_epochs=1",
]


def cells(*, smallest: bool) -> dict[str, list[str]]:
    """Returns the runs of the grid: the name of a run directory -> its flags."""
    grid = {"learning_rate": GRID["learning_rate"]} if smallest else GRID
    combinations = (dict(zip(grid, values)) for values in itertools.product(*grid.values()))
    return {
        "_".join(values.values()).replace(",", "-"): [
            *_FLAGS,
            *(_SMALLEST_FLAGS if smallest else []),
            *(f"--{name}={value}" for name, value in values.items()),
        ]
        for values in combinations
    }


def train(folder: str, *, smallest: bool) -> list[str]:
    """Trains the runs of the grid that are not finished.

    Args:
        folder: where their run directories are.
        smallest: see `cells`.

    Returns:
        The run directories.

    Raises:
        SystemExit: if a run fails.
    """
    runs = []
    for name, flags in cells(smallest=smallest).items():
        runs.append(os.path.join(folder, name))
        if os.path.exists(os.path.join(runs[-1], "result.json")):
            continue
        program = [sys.executable, os.path.join(_ROOT, "run.py"), f"--model_dir={runs[-1]}"]
        # Unlike train_then_eval, eval does not measure the baselines.
        for arguments in (["--mode=train", *flags], ["--mode=eval"]):
            if subprocess.call([*program, *arguments]):
                sys.exit(f"run.py {arguments[0]} of {runs[-1]} failed; see above.")
    return runs


def read(run: str) -> dict[str, float]:
    """Returns the accuracy and the numbers of a finished run.

    Raises:
        SystemExit: if it has none.
    """
    path = os.path.join(run, "result.json")
    try:
        with open(path, encoding="utf-8") as file:
            result = json.load(file)
        return {name: float(result[name]) for name in (_ACCURACY, *NUMBERS)}
    except (OSError, ValueError, KeyError) as error:
        sys.exit(
            f"{path} cannot be used ({error}); evaluate the run with run.py --mode=eval "
            f"--evaluations=label_free --model_dir={run}"
        )


def correlate(results: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Returns what each number says about the accuracy.

    Args:
        results: of at least two runs.

    Returns:
        Name of a number -> {"correlation": Spearman's, NaN if all runs have the same value,
        "chosen": accuracy of the run in which the number is the largest}.
    """
    accuracies = [result[_ACCURACY] for result in results]
    found = {}
    for name in NUMBERS:
        values = [result[name] for result in results]
        varies = min(len(set(values)), len(set(accuracies))) > 1
        correlation = stats.spearmanr(values, accuracies)[0] if varies else math.nan
        found[name] = {
            "correlation": float(correlation),
            "chosen": accuracies[values.index(max(values))],
        }
    return found


def rows(results: list[dict[str, float]]) -> list[list[str]]:
    """Returns the table, without its header."""
    return [
        [NUMBERS[name], f"{found['correlation']:+.2f}", f"{found['chosen']:.1%}"]
        for name, found in correlate(results).items()
    ]


def _header(results: list[dict[str, float]]) -> list[str]:
    accuracies = [result[_ACCURACY] for result in results]
    best = f"accuracy of the chosen run (of {min(accuracies):.1%} to {max(accuracies):.1%})"
    return ["number", f"Spearman's correlation, {len(results)} runs", best]


def markdown(results: list[dict[str, float]]) -> str:
    """Returns the table for docs/evaluation.md."""
    lines = [_header(results), ["---", "--:", "--:"], *rows(results)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _show(results: list[dict[str, float]]) -> None:
    table = Table(title="numbers without labels, and linear accuracy")
    for heading in _header(results):
        table.add_column(heading)
    for row in rows(results):
        table.add_row(*row)
    Console().print(table)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", help="directories of finished runs")
    parser.add_argument("--train", action="store_true", help="train the grid, and read it, too")
    parser.add_argument("--folder", help="folder of the grid (default: runs/label_free)")
    parser.add_argument("--json", action="store_true", help="print a JSON object as the last line")
    parser.add_argument("--write", action="store_true", help="update docs/evaluation.md")
    parser.add_argument(
        "--smallest",
        action="store_true",
        help="train two tiny networks for one epoch, to check that this program works",
    )
    arguments = parser.parse_args()
    if arguments.smallest and arguments.write:
        parser.error("--smallest trains too little for docs/evaluation.md; leave out --write")
    if len(arguments.runs) < 2 and not (arguments.train or arguments.smallest):
        parser.error("name at least two finished runs, or give --train")
    name = "label_free_smallest" if arguments.smallest else "label_free"
    arguments.folder = arguments.folder or os.path.join("runs", name)
    return arguments


def main() -> None:
    """Trains the missing runs of the grid, and prints the correlations of all."""
    arguments = _parse()
    runs = list(arguments.runs)
    if arguments.train or arguments.smallest:
        runs += train(arguments.folder, smallest=arguments.smallest)
    results = [read(run) for run in runs]
    _show(results)
    if arguments.write:
        pages.replace_table(_PAGE, "label_free.py", markdown(results))
    if arguments.json:
        print(json.dumps({"runs": len(results), **correlate(results)}))


if __name__ == "__main__":
    main()
