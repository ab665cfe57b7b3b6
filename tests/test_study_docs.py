"""The published results of studies in docs/studies/, and the page that explains their files."""

from __future__ import annotations

import json
import pathlib
import re

import pytest
import tiny_studies

from flags import flagfiles
from simclr_tf.commands import study_plan
from simclr_tf.studies import reading

_DOCS = pathlib.Path(__file__).parents[1] / "docs" / "studies"
_PAGE = _DOCS.with_suffix(".md").read_text()
_PUBLISHED = sorted(path.stem for path in _DOCS.glob("*.json"))


@pytest.mark.parametrize("name", _PUBLISHED)
def test_a_published_study_is_that_of_its_file(name):
    study = reading.read(flagfiles.STUDIES / f"{name}.toml")
    found = json.loads((_DOCS / f"{name}.json").read_text())
    assert found["orders_sha256"] == study.orders_hash
    labels = {tuple(cell["labels"].items()) for cell in found["cells"]}
    assert labels == {tuple(one.items()) for one in study.all_labels()}
    assert len(found["cells"]) == len(labels) * len(study.seeds)
    assert [order["claim"] for order in found["orders"]] == [one.claim for one in study.orders]


@pytest.mark.parametrize("name", _PUBLISHED)
def test_the_page_of_a_published_study_has_its_verdicts_and_figure(name):
    page = (_DOCS / f"{name}.md").read_text()
    found = json.loads((_DOCS / f"{name}.json").read_text())
    assert (_DOCS / f"{name}.svg").exists() and f"({name}.svg)" in page
    # The first table below the title.
    verdicts = page.partition("## Expected orders\n\n")[2].partition("\n\n")[0]
    for order in found["orders"]:
        claim = f"| {order['claim']} "  # Then the margin, if there is one, or the next column.
        begins = (f"{claim}|", f"{claim}(")
        (row,) = (one for one in verdicts.splitlines() if one.startswith(begins))
        assert row.replace("*", "").endswith(f"| {order['verdict']} |")


def test_the_example_of_the_page_is_a_study_whose_cells_can_be_trained(tmp_path):
    (example,) = re.findall(r"```toml\n(.*?)```", _PAGE, re.DOTALL)
    study = tiny_studies.read(tmp_path, example)
    study_plan.check(study, {}, str(tmp_path))
    assert len(study.all_labels()) == len(study.seeds) == 2
    assert study.orders[0].margin == 2.0


@pytest.mark.parametrize(
    ("title", "keys"),
    [
        ("The file", reading._KEYS),
        ("Axes", reading._AXIS_KEYS),
        ("Orders", reading._ORDER_KEYS),
        ("Figure", reading._FIGURE_KEYS),
        ("Values of an axis", reading._VALUE_KEYS),
        ("Tuning", reading._TUNING_KEYS),
    ],
)
def test_the_page_explains_every_key_of_a_file(title, keys):
    section = _PAGE.partition(f"### {title}\n")[2].partition("\n#")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == sorted(keys)
