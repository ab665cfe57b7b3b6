"""Compares the accuracies that recipes reach after the same time of training.

    python benchmarks/time_to_accuracy.py              trains what is missing, about an hour
    python benchmarks/time_to_accuracy.py --write      also updates docs/performance.md
    python benchmarks/time_to_accuracy.py --json       also prints a JSON object as the last line
    python benchmarks/time_to_accuracy.py --smallest   takes a minute

10,000 images of CIFAR-10, reduced to 16 pixels, are trained on without labels, and a linear
classifier of the features is evaluated on 2,000 others. Two recipes take turns, seed by seed:
flags/recipes/cifar10_cpu.flags, and the settings for CIFAR-10 in the README of
google-research/simclr, with its ResNet-18. Each is trained for several lengths, and each length
has a learning rate that decays to 0 at its end. Minutes are those of training, without the
evaluation. The first recipe computes in bfloat16 where the processor multiplies in it. Runs are
kept in a folder, so the program can be interrupted.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

from scipy import stats

from benchmarks import pages

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_PAGE = _ROOT / "docs" / "performance.md"
_COMMON = {
    "mode": "train_then_eval",
    "train_split": "train[:10000]",
    "eval_split": "test[:2000]",
    "image_size": "16",
    "evaluations": "none",
    "untrained_baselines": "false",
    "checkpoint_epochs": "1000000",  # Only at the end.
}
_SMALLEST = {
    "train_split": "train[:64]",
    "eval_split": "test[:32]",
    "image_size": "12",
    "resnet_depth": "8",
    "train_batch_size": "32",
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A recipe.

    Attributes:
        title: in the table.
        flagfile: its file in flags/recipes.
        epochs: the lengths of training.
        warmup: fraction of the training in which the rate rises; None for that of the file.
    """

    title: str
    flagfile: str
    epochs: tuple[int, ...]
    warmup: float | None = None


OURS = Recipe("cifar10_cpu.flags", "cifar10_cpu.flags", (11, 80))
# Its 10 epochs of warm-up are for 1,000 epochs.
OTHER = Recipe("cifar10_resnet18.flags", "cifar10_resnet18.flags", (1, 7), warmup=0.01)


@dataclasses.dataclass(frozen=True)
class Trained:
    """What the runs of a recipe with one length gave; of each seed, in their order.

    Attributes:
        recipe: the title of the recipe.
        epochs: the length.
        minutes: of training.
        accuracies: of the linear evaluation, from 0 to 1.
        images: images of a run, counted as often as they were trained on.
    """

    recipe: str
    epochs: int
    minutes: list[float]
    accuracies: list[float]
    images: int

    @property
    def accuracy(self) -> float:
        """Mean over the seeds."""
        return statistics.mean(self.accuracies)

    @property
    def median_minutes(self) -> float:
        """Median over the seeds."""
        return statistics.median(self.minutes)


def train(folder: pathlib.Path, recipe: Recipe, flags: dict[str, str]) -> dict[str, float]:
    """Trains and evaluates a run, unless it is finished, and returns its result.json.

    The flags are kept beside the run. If there is one with others, the program ends.
    """
    result, kept = folder / "result.json", folder.with_suffix(".json")
    flagfile = _ROOT / "flags" / "recipes" / recipe.flagfile
    asked = {"flags": flags, "recipe": flagfile.read_text(encoding="utf-8")}
    known = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else None
    if result.exists() and known != asked:
        sys.exit(f"{folder} is of other flags ({kept.name}); delete both, or set --folder.")
    if not result.exists():  # Of a run that is not finished, run.py compares the flags.
        folder.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(asked, indent=1), encoding="utf-8")
        given = [f"--{name}={value}" for name, value in {**flags, "model_dir": str(folder)}.items()]
        command = [sys.executable, str(_ROOT / "run.py"), f"--flagfile={flagfile}", *given]
        subprocess.run(command, check=True, stdout=sys.stderr)
    found: dict[str, float] = json.loads(result.read_text(encoding="utf-8"))
    return found


def measure(
    folder: pathlib.Path, recipes: Sequence[Recipe], seeds: int, flags: dict[str, str]
) -> list[Trained]:
    """Trains all recipes, in turns seed by seed, and returns what they gave."""
    cells = [(recipe, epochs) for recipe in recipes for epochs in recipe.epochs]
    found: dict[tuple[Recipe, int], list[dict[str, float]]] = {cell: [] for cell in cells}
    for seed in range(seeds):
        for recipe, epochs in cells:
            name = f"{pathlib.Path(recipe.flagfile).stem}_{epochs}_epochs_seed_{seed}"
            own = {**_COMMON, **flags, "train_epochs": str(epochs), "seed": str(seed)}
            if recipe.warmup is not None:
                own["warmup_epochs"] = str(recipe.warmup * epochs)
            found[recipe, epochs].append(train(folder / name, recipe, own))
    return [
        Trained(
            recipe.title,
            epochs,
            [result["train/seconds"] / 60 for result in results],
            [result["linear_eval/top_1_accuracy"] for result in results],
            round(results[0]["train/seconds"] * results[0]["train/images_per_second"]),
        )
        for (recipe, epochs), results in found.items()
    ]


def compare(ours: Sequence[Trained], others: Sequence[Trained]) -> list[str]:
    """Returns a sentence for each of our lengths: the other recipe in at least as much time."""
    lines = []
    for one in ours:
        longer = [other for other in others if other.median_minutes >= one.median_minutes]
        if not longer:
            continue
        other = min(longer, key=lambda other: other.median_minutes)
        points = 100 * (one.accuracy - other.accuracy)
        lines.append(
            f"{one.recipe} after {one.median_minutes:.1f} minutes against {other.recipe} after "
            f"{other.median_minutes:.1f}: {points:+.1f} points"
            f"{_probability(one.accuracies, other.accuracies)}"
        )
    return lines


def _probability(some: list[float], others: list[float]) -> str:
    """Returns the p of a paired t-test over the seeds, in words; nothing of a single seed."""
    if len(some) < 2:
        return ""
    return (
        f" (p = {stats.ttest_rel(some, others).pvalue:.2g}, paired t-test over {len(some)} seeds)"
    )


def markdown(trained: Sequence[Trained], comparisons: Sequence[str]) -> str:
    """Returns the table of docs/performance.md."""
    lines = [
        "| recipe | epochs | minutes | views | accuracy | each seed |",
        "|---|--:|--:|--:|--:|---|",
    ]
    for one in trained:
        seeds = ", ".join(f"{100 * accuracy:.1f}" for accuracy in one.accuracies)
        lines.append(
            f"| {one.recipe} | {one.epochs} | {one.median_minutes:.1f} | {2 * one.images:,} "
            f"| {100 * one.accuracy:.1f}% | {seeds} |"
        )
    return "\n".join(lines) + "\n\n" + "".join(f"- {line}.\n" for line in comparisons)


def _lengths(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="runs of each length")
    parser.add_argument("--epochs", type=_lengths, default=OURS.epochs, help="lengths of the first")
    parser.add_argument(
        "--other_epochs", type=_lengths, default=OTHER.epochs, help="lengths of the other recipe"
    )
    parser.add_argument("--dataset", default="cifar10", help="with the splits of CIFAR-10")
    parser.add_argument("--data_dir", help="folder of the data")
    parser.add_argument(
        "--folder", default=_ROOT / "runs" / "time_to_accuracy", type=pathlib.Path, help="the runs"
    )
    parser.add_argument("--write", action="store_true", help="update docs/performance.md")
    parser.add_argument("--json", action="store_true", help="print a JSON object as the last line")
    parser.add_argument("--smallest", action="store_true", help="tiny runs on digits, in a minute")
    arguments = parser.parse_args()
    if arguments.write and arguments.smallest:
        parser.error("--smallest is too small for docs/performance.md; leave out --write")
    return arguments


def main() -> None:
    """Trains the recipes and prints the results."""
    arguments = _parse()
    flags, seeds = {"dataset": arguments.dataset}, arguments.seeds
    lengths = (arguments.epochs, arguments.other_epochs)
    if arguments.smallest:
        flags, seeds, lengths = {"dataset": "digits", **_SMALLEST}, 1, ((1,), (1,))
        arguments.folder /= "smallest"
    if arguments.data_dir:
        flags["data_dir"] = arguments.data_dir
    recipes = [
        dataclasses.replace(recipe, epochs=epochs)
        for recipe, epochs in zip((OURS, OTHER), lengths, strict=True)
    ]
    found = measure(arguments.folder, recipes, seeds, flags)
    by_recipe = [[one for one in found if one.recipe == recipe.title] for recipe in recipes]
    table = markdown(found, compare(*by_recipe))
    print(table)
    if arguments.write:
        pages.replace_table(str(_PAGE), "time_to_accuracy.py", table)
    if arguments.json:
        print(json.dumps([dataclasses.asdict(one) for one in found]))


if __name__ == "__main__":
    main()
