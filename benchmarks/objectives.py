"""How good is the encoder that each objective trains? One table, same encoder, budget and seed.

    python benchmarks/objectives.py --data_dir=PATH            trains them all, prints a table
    python benchmarks/objectives.py --data_dir=PATH --json     the same, and a JSON object last
    python benchmarks/objectives.py --data_dir=PATH --write    the same, into docs/objectives.md

Every row is one run of `run.py --mode=train_then_eval`, in a process and a run directory of its
own, and its number the linear evaluation of the frozen encoder. A row that is there already is
read, one that was broken off is resumed. The budget is the views that an encoder sees:
cross-entropy sees one per image and step, so it has twice the epochs.

Half an hour on two idle cores. PATH holds a data set of tensorflow-datasets: by default
`cifar10_small`, 10,000 training and 2,000 test images of CIFAR-10.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

from rich.console import Console
from rich.table import Table

_ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
_PAGE = os.path.join(_ROOT, "docs", "objectives.md")

# What all rows share: a small ResNet and a budget for two CPU cores.
_SHARED = [
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

# Name of a row -> what it is called, and what it adds.
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
        *(sys.executable, os.path.join(_ROOT, "run.py"), *_SHARED),
        f"--dataset={arguments.dataset}",
        f"--data_dir={arguments.data_dir}",
        f"--train_epochs={epochs}",
        f"--seed={arguments.seed}",
        f"--model_dir={_folder(name, arguments)}",
        *ROWS[name][1],
    ]


def _folder(name: str, arguments: argparse.Namespace) -> str:
    return os.path.join(arguments.runs, f"{name}-{arguments.epochs}-seed{arguments.seed}")


def result(name: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Returns result.json of a row, after training it if need be.

    Raises:
        SystemExit: if the run fails.
    """
    path = os.path.join(_folder(name, arguments), "result.json")
    if not os.path.exists(path) and subprocess.call(command(name, arguments)):
        sys.exit(f"{name} failed")
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def markdown(results: dict[str, dict[str, float]]) -> str:
    """Returns the results as a table, best first."""
    lines = ["| objective | reads labels | linear evaluation |", "|---|---|--:|"]
    for name in _ranked(results):
        labels = "yes" if name in _SUPERVISED else "no"
        lines.append(f"| {ROWS[name][0]} | {labels} | {results[name][_LINEAR]:.1%} |")
    some = results[next(iter(results))]
    for key, what in (("random_encoder", "untrained encoder"), ("raw_pixels", "raw pixels")):
        lines.append(f"| ({what}) | no | {some[f'baseline/{key}/top_1_accuracy']:.1%} |")
    return "\n".join(lines) + "\n"


def _ranked(results: dict[str, dict[str, float]]) -> list[str]:
    return sorted(results, key=lambda name: -results[name][_LINEAR])


def _show(results: dict[str, dict[str, float]]) -> None:
    table = Table(title="linear evaluation of the frozen encoder")
    for heading in ("objective", "top-1", "classifier that learned along", "training"):
        table.add_column(heading, justify="left" if heading == "objective" else "right")
    for name in _ranked(results):
        found = results[name]
        table.add_row(
            ROWS[name][0],
            f"{found[_LINEAR]:.1%}",
            f"{found[_ONLINE]:.1%}",
            f"{found['train/seconds']:.0f} s",
        )
    Console().print(table)


def _write(table: str) -> None:
    """Puts the table into its place on the page, between two marks."""
    begin, end = "<!-- table: benchmarks/objectives.py -->\n", "<!-- end -->\n"
    with open(_PAGE, encoding="utf-8") as file:
        before, rest = file.read().split(begin)
    with open(_PAGE, "w", encoding="utf-8") as file:
        file.write(before + begin + table + end + rest.split(end)[1])


def main() -> None:
    """Trains what is not there yet, prints the table, and writes it where it is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", required=True, help="where the data set lies prepared")
    parser.add_argument("--dataset", default="cifar10_small")
    parser.add_argument("--epochs", type=int, default=9, help="of two views per image")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", default="runs/objectives", help="folder of the run directories")
    parser.add_argument("--only", nargs="*", choices=ROWS, default=list(ROWS), help="some rows")
    parser.add_argument("--json", action="store_true", help="print a JSON object as the last line")
    parser.add_argument("--write", action="store_true", help="into docs/objectives.md")
    arguments = parser.parse_args()
    results = {name: result(name, arguments) for name in arguments.only}
    _show(results)
    if arguments.write:
        _write(markdown(results))
    if arguments.json:
        print(json.dumps({name: found[_LINEAR] for name, found in results.items()}))


if __name__ == "__main__":
    main()
