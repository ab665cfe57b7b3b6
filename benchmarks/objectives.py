"""Compares the objectives: trains an encoder with each of them, and evaluates it.

    python benchmarks/objectives.py --data_dir=PATH            trains all, and prints a table
    python benchmarks/objectives.py --data_dir=PATH --json     also prints one JSON object last
    python benchmarks/objectives.py --data_dir=PATH --write    also updates docs/objectives.md
    python benchmarks/objectives.py --smallest                 takes seconds

Encoder, seed and budget are the same for all objectives. Each row of the table is one run of
`run.py --mode=train_then_eval` in its own process and run directory, and shows the linear
evaluation of the frozen encoder. Finished runs are read, and interrupted runs are resumed. The
budget is the number of views that an encoder sees. Cross-entropy uses one view per image, so it
trains for twice as many epochs.

All runs together take half an hour on two idle cores. PATH is a data directory of
tensorflow-datasets with the data set: by default `cifar10_small`, which consists of 10,000 training
and 2,000 test images of CIFAR-10.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import Any

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

from rich.console import Console
from rich.table import Table

from benchmarks import pages

_ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
_PAGE = os.path.join(_ROOT, "docs", "objectives.md")

# Flags of all rows: a small ResNet, and a batch size for two CPU cores.
_FLAGS = [
    "--mode=train_then_eval",
    "--image_size=32",
    "--resnet_depth=14",
    "--train_batch_size=256",
    "--eval_split=test",
    "--optimizer=momentum",
    "--learning_rate=0.2",
    "--warmup_epochs=1",
    "--weight_decay=1e-4",
    "--color_jitter_strength=0.5",
    "--nouse_blur",
    "--temperature=0.2",
    "--num_proj_layers=2",
    "--checkpoint_epochs=3",
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
]

# Name of a row -> its title, and its flags.
ROWS = {
    "cross_entropy": ("cross-entropy", ["--objective=supervised"]),
    "supcon": ("SupCon", ["--objective=supcon"]),
    "nt_xent": ("SimCLR: NT-Xent", ["--objective=nt_xent"]),
    "nt_logistic": ("NT-Logistic", ["--objective=nt_logistic"]),
    "nt_logistic_semi_hard": (
        "NT-Logistic, semi-hard",
        ["--objective=nt_logistic", "--semi_hard"],
    ),
    "margin_triplet": ("margin triplet", ["--objective=margin_triplet"]),
    "margin_triplet_semi_hard": (
        "margin triplet, semi-hard",
        ["--objective=margin_triplet", "--semi_hard"],
    ),
}
_SUPERVISED = ("cross_entropy", "supcon")
_LINEAR, _ONLINE = "linear_eval/top_1_accuracy", "eval/label_top_1_accuracy"


def command(name: str, arguments: argparse.Namespace) -> list[str]:
    """Returns the command of a row."""
    epochs = arguments.epochs * (2 if name == "cross_entropy" else 1)
    return [
        *(sys.executable, os.path.join(_ROOT, "run.py"), *_FLAGS),
        *(_SMALLEST_FLAGS if arguments.smallest else []),
        *([f"--data_dir={arguments.data_dir}"] if arguments.data_dir else []),
        f"--dataset={arguments.dataset}",
        f"--train_epochs={epochs}",
        f"--seed={arguments.seed}",
        f"--model_dir={_folder(name, arguments)}",
        *ROWS[name][1],
    ]


def _folder(name: str, arguments: argparse.Namespace) -> str:
    return os.path.join(arguments.runs, f"{name}-{arguments.epochs}-seed{arguments.seed}")


def result(name: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Returns the content of a row's result.json, and trains the row first if it is missing.

    Raises:
        SystemExit: if the run fails.
    """
    path = os.path.join(_folder(name, arguments), "result.json")
    if not os.path.exists(path) and subprocess.call(command(name, arguments)):
        sys.exit(f"The training of {name} failed; see above.")
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def markdown(results: dict[str, dict[str, float]]) -> str:
    """Returns the results as a table, best first."""
    lines = ["| objective | reads labels | linear evaluation |", "|---|---|--:|"]
    for name in _ranked(results):
        labels = "yes" if name in _SUPERVISED else "no"
        lines.append(f"| {ROWS[name][0]} | {labels} | {results[name][_LINEAR]:.1%} |")
    first = results[next(iter(results))]  # The baselines are the same in all rows.
    for key, title in (("random_encoder", "untrained encoder"), ("raw_pixels", "raw pixels")):
        lines.append(f"| ({title}) | no | {first[f'baseline/{key}/top_1_accuracy']:.1%} |")
    return "\n".join(lines) + "\n"


def _ranked(results: dict[str, dict[str, float]]) -> list[str]:
    return sorted(results, key=lambda name: -results[name][_LINEAR])


def _show(results: dict[str, dict[str, float]]) -> None:
    table = Table(title="linear evaluation of the frozen encoder")
    for heading in ("objective", "top-1", "head trained alongside", "training"):
        table.add_column(heading, justify="left" if heading == "objective" else "right")
    for name in _ranked(results):
        row = results[name]
        table.add_row(
            ROWS[name][0],
            f"{row[_LINEAR]:.1%}",
            f"{row[_ONLINE]:.1%}",
            f"{row['train/seconds']:.0f} s",
        )
    Console().print(table)


def _parse() -> argparse.Namespace:
    """Returns the arguments, with defaults that depend on --smallest."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", help="data directory with the prepared data set")
    parser.add_argument("--dataset", help="name of the data set (default: cifar10_small)")
    parser.add_argument("--epochs", type=int, help="epochs with two views per image (default: 9)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", help="folder for the run directories (default: runs/objectives)")
    parser.add_argument("--only", nargs="*", choices=ROWS, help="train these rows (default: all)")
    parser.add_argument("--json", action="store_true", help="print a JSON object as the last line")
    parser.add_argument("--write", action="store_true", help="update docs/objectives.md")
    parser.add_argument(
        "--smallest",
        action="store_true",
        help="train a tiny network for one epoch on 64 embedded digits, by default only with "
        "NT-Xent and in runs/objectives_smallest; in seconds, to check that this program works",
    )
    arguments = parser.parse_args()
    if arguments.smallest and arguments.write:
        parser.error("--smallest trains too little for docs/objectives.md; leave out --write")
    if not arguments.smallest and not arguments.data_dir:
        parser.error("--data_dir is missing; name a data directory of tensorflow-datasets")
    defaults: dict[str, Any] = {
        "dataset": "cifar10_small",
        "epochs": 9,
        "runs": os.path.join("runs", "objectives"),
        "only": list(ROWS),
    }
    if arguments.smallest:
        defaults = {
            "dataset": "digits",
            "epochs": 1,
            "runs": os.path.join("runs", "objectives_smallest"),
            "only": ["nt_xent"],
        }
    given = {name: value for name, value in vars(arguments).items() if value is not None}
    return argparse.Namespace(**{**vars(arguments), **defaults, **given})


def main() -> None:
    """Trains the missing rows and prints the results."""
    arguments = _parse()
    results = {name: result(name, arguments) for name in arguments.only}
    _show(results)
    if arguments.write:
        pages.replace_table(_PAGE, "objectives.py", markdown(results))
    if arguments.json:
        print(json.dumps({name: row[_LINEAR] for name, row in results.items()}))


if __name__ == "__main__":
    main()
