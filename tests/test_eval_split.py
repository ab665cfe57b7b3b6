"""An evaluation split that the user names must exist, in every mode that takes one."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_runs

from simclr_tf import config, errors
from simclr_tf.runs import dataset


def open_data(data_dir, *, given=True, **settings: Any) -> dataset.Data:
    """Opens a folder of images, without what else a run needs."""
    described = config.Config(dataset="image_folder", data_dir=str(data_dir), **settings)
    return dataset.open_data(described, eval_split_given=given)


@pytest.mark.parametrize("train_mode", config.TRAIN_MODES)
@pytest.mark.parametrize("mode", ["train", "train_then_eval", "eval"])
@pytest.mark.parametrize("split", ["tset", "validation", "test[:50%", "test+tset"])
def test_a_split_that_does_not_exist_is_refused(photos, mode, train_mode, split):
    with pytest.raises(errors.UserError) as raised:
        open_data(photos, mode=mode, train_mode=train_mode, eval_split=split)
    assert "train (36)" in str(raised.value) and "test (18)" in str(raised.value)


def test_it_is_refused_where_it_would_not_be_read(tmp_path_factory):
    unlabelled = tiny_runs.unlabelled_photos(tmp_path_factory)
    with pytest.raises(errors.UserError, match="no split 'tset'"):
        open_data(unlabelled, mode="train_then_eval", eval_split="tset")


def test_pretraining_is_refused_before_anything_is_written(photos, tmp_path, capsys):
    assert tiny_runs.main("pretrain", tmp_path / "run", photos, eval_split="tset") == 2
    assert "no split 'tset' (did you mean test?)" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_without_an_evaluation_split_is_reproduced_by_its_flagfile(tmp_path_factory):
    # Its flagfile names the default, which its data does not have.
    unlabelled = tiny_runs.unlabelled_photos(tmp_path_factory)
    first = open_data(unlabelled, given=False)
    assert first.eval_split == "validation"
    assert open_data(unlabelled, eval_split=first.eval_split).eval_split == "validation"
