"""The tables, figures and predictions that an evaluation writes."""

import csv
from xml.etree import ElementTree

import numpy as np
from PIL import Image
import pyarrow as pa
from pyarrow import parquet
import pytest
from scipy import special

from simclr_tf import errors
from simclr_tf.evaluation import outcome
from simclr_tf.report import contact_sheet, evaluation_files
from simclr_tf.runs import predictions


def _outcome():
    def draw(target):
        target.subplots().plot([0, 1], [1, 0])

    return outcome.Outcome(
        tables={"classes.csv": [["class", "accuracy"], ['a "dog", small', "0.5"]]},
        figures={"line.svg": draw},
        sheets={
            "rows.png": [
                ("one", [outcome.Tile(np.zeros([8, 8, 3]))] * 2),
                ("two", [outcome.Tile(np.ones([8, 8, 3]))]),
            ]
        },
    )


def test_tables_and_figures_can_be_read_again(tmp_path):
    folder = evaluation_files.write(str(tmp_path), 12, {"one": _outcome()})
    assert folder == str(tmp_path / "evaluation" / "12")
    with open(f"{folder}/classes.csv", newline="") as file:
        assert list(csv.reader(file)) == _outcome().tables["classes.csv"]
    root = ElementTree.parse(f"{folder}/line.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    with Image.open(f"{folder}/rows.png") as picture:
        pixels = np.asarray(picture)
    np.testing.assert_array_equal(pixels, contact_sheet.draw_tiles(_outcome().sheets["rows.png"]))


def test_a_figure_is_written_as_the_same_bytes_again(tmp_path):
    contents = []
    for step in (1, 2):
        evaluation_files.write(str(tmp_path), step, {"one": _outcome()})
        contents.append((tmp_path / "evaluation" / str(step) / "line.svg").read_bytes())
    assert contents[0] == contents[1]


def test_no_folder_is_made_for_numbers_alone(tmp_path):
    numbers = outcome.Outcome(numbers={"x": 1.0})
    assert evaluation_files.write(str(tmp_path), 1, {"one": numbers}) is None
    assert not list(tmp_path.iterdir())


def _write(model_dir, names=("a.png", "é.png"), labels=(0, 1)):
    scores = np.float32([[2, 0, 1], [-np.inf, 1, 1.5]])
    found = predictions.of_scores(12, names, np.array(labels), scores, ["x", "y", "z"])
    predictions.write(str(model_dir), found)
    return scores


def test_predictions_have_a_row_for_every_image(tmp_path):
    scores = _write(tmp_path)
    read = parquet.read_table(tmp_path / "predictions.parquet").to_pydict()
    assert read["name"] == ["a.png", "é.png"]
    assert read["label"] == ["x", "y"] and read["prediction"] == ["x", "z"]
    np.testing.assert_allclose(read["probability"], special.softmax(scores, 1).max(1), rtol=1e-6)
    again = predictions.read(str(tmp_path))
    assert again.right.tolist() == [True, False] and again.step == 12


def test_predictions_that_cannot_be_written_are_a_sentence(tmp_path):
    (tmp_path / "predictions.parquet").mkdir()
    with pytest.raises(errors.UserError, match=r"predictions\.parquet .*remove the folder"):
        _write(tmp_path)


@pytest.mark.parametrize("damage", [b"", b"PAR1 no longer", "another table"])
def test_damaged_predictions_are_a_sentence(tmp_path, damage):
    path = tmp_path / "predictions.parquet"
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    else:
        parquet.write_table(pa.table({"name": ["a"]}), path)
    with pytest.raises(errors.UserError, match=r"cannot be read .*--mode=eval writes it again"):
        predictions.read(str(tmp_path))
