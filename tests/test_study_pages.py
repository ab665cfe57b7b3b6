"""What a study writes: its results, its page, its figures, and what it expected beforehand."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import statistics
from typing import Any

from matplotlib import figure
import numpy as np
import pytest
import tiny_studies

from flags import flagfiles
from simclr_tf import config, errors
from simclr_tf.commands import study_selection
from simclr_tf.evaluation import contrasts
from simclr_tf.report import study_figures, study_page
from simclr_tf.studies import hparams, plans, published, reading, results, tuning


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(contrasts, "_RESAMPLES", contrasts._CHUNK)


@pytest.fixture
def study(tmp_path):
    return tiny_studies.read(tmp_path)


@pytest.fixture
def found(study):
    cells = tiny_studies.outcomes_of(study, {"8": 0.5, "16": 0.6})
    return tiny_studies.results_of(study, cells)


def rows_of(page: str, title: str) -> list[list[str]]:
    """Returns the rows of the first table below a title, without header."""
    section = page.partition(f"## {title}\n")[2].partition("\n## ")[0]
    return table_rows(section)


def table_rows(text: str) -> list[list[str]]:
    """Returns the rows of the first table in a text, without header."""
    (lines,) = [one.splitlines() for one in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)][:1]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines[2:]]


def test_hits_are_packed_without_loss():
    for count in (0, 1, 8, 1001):
        right = np.random.default_rng(count).random(count) < 0.5
        assert np.array_equal(results.unpacked(results.packed(right), count), right)
    assert len(results.packed(np.ones(8000, bool))) < 1400


def test_the_verdicts_can_be_computed_from_the_file_of_results(found):
    stored = json.loads(json.dumps(results.to_json(found, "/root"), allow_nan=False))
    count = stored["images"]
    accuracies = {}
    for cell in stored["cells"]:
        right = results.unpacked(cell["right"], count)
        assert right.mean() == pytest.approx(cell["accuracy"])
        accuracies[cell["labels"]["width"], cell["seed"]] = right.mean()
    (order,) = stored["orders"]
    differences = [accuracies["16", seed] - accuracies["8", seed] for seed in (0, 1)]
    assert order["of_seeds"] == pytest.approx(differences)
    assert order["difference"] == pytest.approx(np.mean(differences))
    assert order["verdict"] == "shown"
    assert stored["cells"][0]["arguments"][0] == "--mode=train_then_eval"


def test_the_file_of_results_is_json_whatever_is_missing(tmp_path, study):
    nothing = tiny_studies.results_of(study, [])
    one = tiny_studies.outcome(study, {"width": "8"}, 0, [], {"loss": float("nan")})
    other = tiny_studies.outcome(study, {"width": "16"}, 0, [True, False])
    with_columns = tiny_studies.read(
        tmp_path, tiny_studies.TEXT.replace("[flags]", '[columns]\nl = "loss"\n[flags]')
    )
    for incomplete in (nothing, tiny_studies.results_of(with_columns, [one, other])):
        stored = json.loads(json.dumps(results.to_json(incomplete, "/root"), allow_nan=False))
        assert stored["orders"] == [{"claim": "16 above 8", "verdict": "not run"}]
    # The second cell was evaluated on other images, and has no loss.
    assert [cell["right"] for cell in stored["cells"]] == ["", None]
    assert [cell["columns"] for cell in stored["cells"]] == [{"l": None}, {"l": None}]


def test_columns_are_means_over_seeds_and_accuracies_are_percentages(tmp_path):
    columns = """[columns]
loss = "loss"
"raw pixels" = "baseline/raw_pixels/top_1_accuracy"
[flags]"""
    study = tiny_studies.read(tmp_path, tiny_studies.TEXT.replace("[flags]", columns))
    runs = [
        tiny_studies.outcome(
            study,
            {"width": "8"},
            seed,
            [True, False],
            {"loss": 1.5, "baseline/raw_pixels/top_1_accuracy": 0.25 + seed / 8},
        )
        for seed in (0, 1)
    ]
    runs.append(tiny_studies.outcome(study, {"width": "16"}, 0, [True, False], {"loss": 0.1}))
    rows = rows_of(study_page.write(tiny_studies.results_of(study, runs), []), "Cells")
    assert [row[3:5] for row in rows] == [["1.500", "31.2%"], ["0.100", ""]]


def test_the_numbers_of_the_page_are_those_of_the_results(found):
    page = study_page.write(found, ["tiny.svg"])
    ((claim, difference, seeds, p, adjusted, verdict),) = rows_of(page, "Expected orders")
    contrast = found.verdicts[0].contrast
    assert claim == "16 above 8"
    value, low, high = (100 * number for number in contrast.difference)
    assert difference == f"{value:+.1f} ({low:+.1f} to {high:+.1f})"
    assert [float(one) for one in seeds.split(", ")] == pytest.approx(
        [100 * one for one in contrast.of_seeds], abs=0.051
    )
    assert float(p) == float(adjusted) == pytest.approx(contrast.p, rel=0.06)
    assert verdict == "**shown**"
    cells = rows_of(page, "Cells")
    for row, first in zip(cells, (0, 2), strict=True):
        mean = 50 * sum(one.accuracy for one in found.finished[first : first + 2])
        low, high = re.fullmatch(rf"{mean:.1f}% \(([\d.]+) to ([\d.]+)\)", row[1]).groups()
        assert float(low) < mean < float(high)
        assert row[3:] == ["1.5 (1.0)", "640", "1,280", "1.00 GiB"]
    assert "of 1 expected order: 1 shown." in page
    assert "![Width of the head](tiny.svg)" in page
    assert "4 runs, whose times add up to 6 min." in page
    assert "SHA-256 `" + found.study.orders_hash[:16] in page


def test_the_differences_that_the_seeds_could_have_shown_are_a_table(found):
    page = study_page.write(found, [])
    ((claim, deviation, smallest, needed),) = table_rows(page.partition("probability of 80%")[2])
    seeds = [100 * one for one in found.verdicts[0].contrast.of_seeds]
    assert claim == "16 above 8"
    assert float(deviation) == pytest.approx(statistics.stdev(seeds), abs=0.051)
    (stored,) = results.to_json(found, "/root")["orders"]
    assert float(smallest) == pytest.approx(stored["smallest_difference"], abs=0.051)
    assert int(needed) == stored["seeds_needed"]
    # With one seed, nothing is known of others.
    one = dataclasses.replace(found.study, seeds=(0,))
    of_one = [each for each in found.finished if each.cell.seed == 0]
    assert "80%" not in study_page.write(tiny_studies.results_of(one, of_one), [])


def test_pipes_in_names_do_not_break_tables(tmp_path):
    text = tiny_studies.TEXT.replace('title = "width"', 'title = "a|b"')
    study = tiny_studies.read(tmp_path, text.replace("16 above 8", "x|y"))
    page = study_page.write(tiny_studies.results_of(study, []), [])
    assert "| x\\|y |" in page
    found = tiny_studies.outcomes_of(study, {"8": 0.5, "16": 0.6})
    page = study_page.write(tiny_studies.results_of(study, found), [])
    assert "| a\\|b |" in page
    for table in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        assert len({len(re.split(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_a_page_names_what_failed_with_its_error_and_command(study):
    failure = results.Failure("tiny: 8, seed 0", "error: no `disk`.", "python run.py --seed=0")
    page = study_page.write(tiny_studies.results_of(study, [], failures=[failure]), [])
    assert "tiny: 8, seed 0:\n\n```text\nerror: no `disk`.\n```" in page
    assert "```sh\npython run.py --seed=0\n```" in page
    assert "None of 4 cells is done." in page
    assert "of 1 expected order: 1 not run." in page


def test_the_list_says_whether_a_study_without_orders_was_run(tmp_path):
    text = tiny_studies.TEXT
    study = tiny_studies.read(
        tmp_path, text[: text.index("[[orders]]")] + text[text.index("[figure]") :]
    )
    page = study_page.index([published.Summary(study, [], 0, {})], [None])
    assert "Of 1 studies, 1 not run." in page
    assert page.count("| not run |") == 1
    page = study_page.index([published.Summary(study, [], 4, {"a": 1.0})], [None])
    assert "Of 1 studies, 1 without an expected order." in page
    assert "| not run |" not in page


def test_a_study_without_orders_has_a_page_without_verdicts(tmp_path):
    text = tiny_studies.TEXT
    start, end = text.index("[[orders]]"), text.index("[figure]")
    study = tiny_studies.read(tmp_path, text[:start] + text[end:])
    found = tiny_studies.outcomes_of(study, {"8": 0.5, "16": 0.6})
    page = study_page.write(tiny_studies.results_of(study, found), [])
    assert "expected" not in page.replace("expected to", "").lower()
    assert rows_of(page, "Cells")


def test_commands_on_a_page_can_be_copied_and_name_no_folder_of_this_machine(study):
    run = tiny_studies.run(study, {"width": "8"}, data_dir="/home/me", train_split="train[:50%]")
    command = results.command_of(run)
    assert "--data_dir=PATH" in command
    assert "/home/me" not in command
    assert "'--train_split=train[:50%]'" in command  # Shells read brackets otherwise.
    assert f"--model_dir=runs/studies/cells/{run.identity}" in command


@pytest.mark.parametrize(
    ("given", "model_dir", "words"),
    [
        ("own/tiny.toml", None, ["--study=own/tiny.toml"]),
        ("own/tiny.toml", "runs/mine", ["--study=own/tiny.toml", "--model_dir=runs/mine"]),
        ("/x/my study.toml", "/y", ["--study=/x/my study.toml", "--model_dir=/y"]),
        # The page of a study that comes with the program may be published.
        ("tiny", "/y", ["--study=tiny"]),
        ("tiny", "runs/mine", ["--study=tiny", "--model_dir=runs/mine"]),
    ],
)
def test_the_command_of_a_study_repeats_it(study, tmp_path, monkeypatch, given, model_dir, words):
    monkeypatch.chdir(tmp_path)
    absolute = model_dir and str(tmp_path / model_dir)
    settings = config.Config(mode="study", study=given, model_dir=absolute)
    shown = study_selection.shown(settings, study, {})
    assert shlex.split(shown.command) == ["python", "run.py", "--mode=study", *words]
    # The commands of its cells are in the same folder.
    root = words[1].partition("=")[2] if len(words) > 1 else "runs/studies"
    found = tiny_studies.results_of(
        study, tiny_studies.outcomes_of(study, {"8": 0.5, "16": 0.6}), root=shown.root
    )
    page = study_page.write(found, [])
    assert f"--model_dir={root}/cells/{found.finished[0].cell.run.identity}" in page
    stored = results.to_json(found, str(tmp_path))
    assert stored["cells"][0]["arguments"][-1].startswith(f"--model_dir={root}/cells/")


def test_costs_count_every_run_once(found):
    other = tiny_studies.results_of(found.study, found.finished, costs={**found.costs, "x": 60.0})
    summaries = [published.of_results(one) for one in (found, other)]
    page = study_page.index(summaries, ["a.md", "b/b.md"])
    assert "The times of all runs add up to 7 min." in page
    assert "[Width of the head](b/b.md)" in page
    # Two equal orders: Holm doubles the smaller p-value.
    rows = [line.split(" | ") for line in page.splitlines() if "16 above 8" in line]
    assert float(rows[0][5]) == pytest.approx(2 * float(rows[0][4]), rel=0.1)
    assert "Of 2 studies, 2 with every expected order shown. p-values" in page


def test_the_list_of_studies_is_the_same_from_the_files_of_their_results(found, tmp_path):
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(results.to_json(found, str(tmp_path))))
    pages = [
        study_page.index([summary], ["tiny.md"])
        for summary in (published.of_results(found), published.read(str(tmp_path), found.study))
    ]
    assert pages[0] == pages[1]
    assert "| +10." in pages[0] and "**shown**" in pages[0]


def test_results_of_other_expected_orders_do_not_count(study, tmp_path):
    assert published.read(str(tmp_path), study) is None
    empty = tiny_studies.results_of(study, [])
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(results.to_json(empty, str(tmp_path))))
    assert published.read(str(tmp_path), study).tested == [None]
    changed = tiny_studies.read(tmp_path, tiny_studies.TEXT.replace("16 above 8", "now"))
    assert published.read(str(tmp_path), changed) is None
    path.write_text("{}")
    with pytest.raises(errors.UserError, match=r"tiny.json is not a file of results .*delete it"):
        published.read(str(tmp_path), study)


def test_orders_are_kept_and_a_change_of_them_is_on_the_page(tmp_path, study, capsys):
    first = plans.register(study, str(tmp_path / "plan"))
    assert plans.register(study, str(tmp_path / "plan")) == first
    assert [one["sha256"] for one in first] == [study.orders_hash]
    changed = tiny_studies.read(tmp_path, tiny_studies.TEXT.replace("16 above 8", "now"))
    both = plans.register(changed, str(tmp_path / "plan"))
    assert "The expected orders of tiny were changed after" in capsys.readouterr().out
    assert both[0] == first[0]
    assert [one["orders"][0]["claim"] for one in both] == ["16 above 8", "now"]
    page = study_page.write(tiny_studies.results_of(changed, [], versions=both), [])
    assert "**They were changed afterwards**" in page
    assert changed.orders_hash[:16] in page


def test_the_settings_that_were_tuned_are_on_the_page(tmp_path):
    text = tiny_studies.TEXT + (
        '[tuning]\nseed = 7\nflags = { eval_split = "train[80%:]" }\n[tuning.axes.rate]\n'
        'title = "rate"\nvalues.low = { learning_rate = 1.0 }\n'
        "values.high = { learning_rate = 2.0 }\n"
        '[tuning.axes.other]\ntitle = "rate"\nonly.width = ["8"]\n'
        "values.same = {}\n"
    )
    study = tiny_studies.read(tmp_path, text)
    groups = {trial.group for trial in tuning.trials(study, {})}
    chosen = {group: ({"rate": "high"}, {"low": 0.25, "high": 0.5}) for group in groups}
    page = study_page.write(tiny_studies.results_of(study, [], chosen=chosen), [])
    assert rows_of(page, "Settings that were tuned")[0][1:] == ["**high**", "low: 25.0, high: 50.0"]
    assert "\nrate: chosen for each row" in page  # Both axes have this title.
    assert "`eval_split=train[80%:]`, seed 7" in page


@pytest.mark.parametrize("path", sorted(flagfiles.STUDIES.glob("*.toml")), ids=lambda p: p.stem)
def test_the_figure_of_a_published_study_has_its_labels(path):
    study = reading.read(path)
    metrics = {side.metric for order in study.orders for side in order.sides}
    metrics |= set(study.figure.metrics.values())
    numbers = dict.fromkeys([*metrics, *study.columns.values(), study.figure.metric], 0.5)
    found = [
        tiny_studies.outcome(study, labels, seed, [True, seed % 2 == 0, False], numbers)
        for labels in study.all_labels()
        for seed in study.seeds
    ]
    drawn = study_figures.draw(tiny_studies.results_of(study, found))
    assert drawn == study_figures.draw(tiny_studies.results_of(study, found))
    for axis in filter(None, (study.figure.x, study.figure.series)):
        for label in study.axis(axis).values:
            assert f">{label}<" in drawn
    for label in study.figure.metrics:
        assert f">{label}<" in drawn
    # One cell is enough, as in a study that has just begun.
    assert "<svg" in study_figures.draw(tiny_studies.results_of(study, found[:1]))


def test_several_metrics_are_bars_side_by_side(tmp_path):
    figure_of = '[figure]\ny_title = "part"\nmetrics = { one = "a", two = "b" }'
    study = tiny_studies.read(tmp_path, tiny_studies.TEXT.replace("[figure]", figure_of))
    found = [
        tiny_studies.outcome(study, {"width": width}, 0, [True], {"a": a, "b": 2 * a})
        for width, a in (("8", 0.1), ("16", 0.3))
    ]
    target = figure.Figure()
    study_figures._bars(target, tiny_studies.results_of(study, found))
    axes: Any = target.axes[0]
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([0.1, 0.2, 0.3, 0.6])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "two"]
    assert axes.get_ylabel() == "part"


def test_a_bar_is_as_long_as_its_accuracy(found):
    target = figure.Figure()
    study_figures._bars(target, found)
    axes: Any = target.axes[0]
    heights = [bar.get_height() for bar in axes.patches]
    means = [
        50 * (one.accuracy + other.accuracy)
        for one, other in zip(found.finished[::2], found.finished[1::2], strict=True)
    ]
    assert heights == pytest.approx(means)
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylabel() == "accuracy, %"  # It may be that of a trained classifier.


def test_an_unknown_number_is_refused_with_similar_ones(study):
    one = tiny_studies.outcome(
        study, {"width": "8"}, 0, [True], {"train/loss": 1, "text": "x", "yes": True}
    )
    assert one.value("train/loss") == 1.0
    for name in ("train/los", "text", "yes"):
        with pytest.raises(errors.UserError, match=f"has no number {name}.*train/loss"):
            one.value(name)


def test_the_cells_are_written_for_the_hparams_dashboard_once(study, tmp_path):
    one = tiny_studies.outcome(study, {"width": "8"}, 1, [True, False])
    hparams.write(one, str(tmp_path))
    (events,) = (tmp_path / "cells").glob("*/hparams/events*")
    content = events.read_bytes()
    assert b"width" in content
    hparams.write(one, str(tmp_path))
    assert list((tmp_path / "cells").glob("*/hparams/events*")) == [events]
    assert events.read_bytes() == content
