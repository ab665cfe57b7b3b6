"""The published results of studies in docs/studies/."""

from __future__ import annotations

import json
import pathlib

import pytest

from flags import flagfiles
from simclr_tf.studies import reading

_DOCS = pathlib.Path(__file__).parents[1] / "docs" / "studies"
_PUBLISHED = sorted(path.stem for path in _DOCS.glob("*.json"))


@pytest.mark.parametrize("name", _PUBLISHED)
def test_a_published_study_is_that_of_its_file(name):
    study = reading.read(flagfiles.STUDIES / f"{name}.toml")
    found = json.loads((_DOCS / f"{name}.json").read_text())
    assert found["orders_sha256"] == study.orders_hash
    labels = {tuple(cell["labels"].items()) for cell in found["cells"]}
    assert labels == {tuple(one.items()) for one in study.all_labels()}
    assert [order["claim"] for order in found["orders"]] == [one.claim for one in study.orders]


@pytest.mark.parametrize("name", _PUBLISHED)
def test_the_page_of_a_published_study_has_its_verdicts_and_figure(name):
    page = (_DOCS / f"{name}.md").read_text()
    found = json.loads((_DOCS / f"{name}.json").read_text())
    assert (_DOCS / f"{name}.svg").exists() and f"({name}.svg)" in page
    for order in found["orders"]:
        (row,) = (line for line in page.splitlines() if line.startswith(f"| {order['claim']} "))
        assert row.replace("*", "").endswith(f"| {order['verdict']} |")
