"""benchmarks/label_free.py reads finished runs, and correlates their numbers."""

import json

import pytest

from benchmarks import label_free, pages

# Accuracy and RankMe, LiDAR and view retrieval of four runs.
RUNS = [(0.5, 10, 3, 0.9), (0.6, 30, 4, 0.9), (0.7, 20, 5, 0.9), (0.8, 40, 1, 0.9)]


@pytest.fixture
def results():
    names = ("linear_eval/top_1_accuracy", *label_free.NUMBERS)
    return [dict(zip(names, map(float, run))) for run in RUNS]


def test_correlations_are_of_ranks(results):
    found = label_free.correlate(results)
    # 1 - 6 sum d^2 / (n (n^2 - 1)), with d = (0, 1, 1, 0) and (1, 1, 1, 3).
    assert found["label_free/rankme"] == {"correlation": pytest.approx(0.8), "chosen": 0.8}
    assert found["label_free/lidar"] == {"correlation": pytest.approx(-0.2), "chosen": 0.7}
    assert found["label_free/view_retrieval"]["correlation"] != pytest.approx(0)  # NaN
    assert label_free.markdown(results).splitlines()[2] == "| RankMe | +0.80 | 80.0% |"


def test_a_run_without_the_numbers_is_refused_with_the_command(tmp_path):
    (tmp_path / "result.json").write_text(json.dumps({"linear_eval/top_1_accuracy": 0.5}))
    with pytest.raises(SystemExit, match="--evaluations=label_free --model_dir="):
        label_free.read(str(tmp_path))


def test_the_grid_has_all_combinations():
    cells = label_free.cells(smallest=False)
    assert len(cells) == len({tuple(flags) for flags in cells.values()}) == 8


def test_only_the_table_of_the_page_is_replaced(tmp_path, results):
    page = tmp_path / "page.md"
    page.write_text(
        "a\n<!-- table: benchmarks/label_free.py -->\nold\n<!-- end -->\nb\n<!-- end -->\n"
    )
    pages.replace_table(str(page), "label_free.py", label_free.markdown(results))
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-2:], len(lines)) == ("a", ["b", "<!-- end -->"], 10)
    assert "old" not in lines
