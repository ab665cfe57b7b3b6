"""Studies: their files, their cells, and the settings that are tuned."""

from __future__ import annotations

import dataclasses

import pytest
import tiny_studies

from flags import flagfiles
from simclr_tf import config, errors
from simclr_tf.commands import study_plan
from simclr_tf.studies import cells, definition, reading, tuning

PUBLISHED = sorted(flagfiles.STUDIES.glob("*.toml"))
STAGES = tiny_studies.TEXT.replace(
    "[axes.width]",
    """[first_stage]
dataset = "digits"
train_epochs = 5

[axes.width]""",
).replace("[flags]\n", '[flags]\ntrain_mode = "finetune"\nobjective = "supervised"\n')
TUNED = f"""{tiny_studies.TEXT}
[tuning]
seed = 7
flags = {{ train_split = "train[:80%]", eval_split = "train[80%:]" }}

[tuning.axes.rate]
title = "rate"
only.width = ["16"]
values."rate 1" = {{ learning_rate = 1.0 }}
values."rate 2" = {{ learning_rate = 2.0 }}
"""


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_the_cells_of_a_published_study_can_be_trained(path, tmp_path):
    study = reading.read(path)
    assert study.orders or study.name == "recipes"  # Recipes are measured, not compared.
    claims = [order.claim for order in study.orders]
    assert len(set(claims)) == len(claims)
    study_plan.check(study, {}, str(tmp_path))


def test_every_recipe_that_is_not_small_itself_has_a_small_form():
    study = reading.read(flagfiles.STUDIES / "recipes.toml")
    recipes = {path.stem for path in flagfiles.RECIPES.glob("*.flags")}
    assert set(study.axis("recipe").values) == recipes - {"digits", "cifar10_cpu"}


def test_published_studies_share_the_cells_that_are_equal():
    identities = []
    for name in ("training_length", "batch_size", "color_strength"):
        study = reading.read(flagfiles.STUDIES / f"{name}.toml")
        identities.append({one.run.identity for one in tuning.cells_of(study, {}, {})})
    assert len(identities[0] & identities[1]) == 2
    assert len(identities[0] & identities[2]) == 3


def test_the_identity_of_a_run_does_not_change_between_versions():
    # Otherwise whoever trained it would train it again.
    first = cells.Run({"mode": "train", "dataset": "digits", "train_epochs": 10, "seed": 1})
    run = cells.Run({"train_mode": "finetune", "dataset": "digits", "weight_decay": 0.0}, first)
    assert (first.identity, run.identity) == ("2c76b95d0eb5", "c8c8e561d416")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds =", "seed =", "has the unknown key 'seed' in the file (did you mean seeds?)"),
        ('title = "Width', 'titel = "Width', "unknown key 'titel'"),
        ('question = "Does a wider head help?"', "", "needs question in the file as text; it is "),
        ('"A wider head helps."', "3", "needs finding in the file as text; it is 3."),
        ("[0, 1]", "[0, -1]", "has seeds = [0, -1]; list integers from 0"),
        ("[0, 1]", "[]", "has seeds = []"),
        ("[0, 1]", "[true]", "has seeds = [True]"),
        ("[0, 1]", "[1, 1]", "has the seed 1 twice, in seeds = [1, 1]; list each"),
        ("[0, 1]", "3", "needs seeds in the file as a list; it is 3."),
        ("seeds =", "= seeds =", "cannot be read (Invalid statement"),
        ("train_epochs = 3", "train_epoch = 3", "sets train_epoch in flags, which is not a flag"),
        ("train_epochs = 3", "zzz = 3", "is not a flag; flags are written without --."),
        ("train_epochs = 3", "train_epochs = 3.5", "to 3.5, which must be of type int."),
        ("train_epochs = 3", "use_blur = 1", "to 1, which must be of type bool."),
        ("train_epochs = 3", "seed = 3", "sets seed in flags, which a study sets itself"),
        ("train_epochs = 3", "jobs = 3", "sets jobs in flags, which a study sets itself"),
        ("proj_out_dim = 8 ", "model_dir = 'x' ", "sets model_dir in axes.width.values.8"),
        ("[flags]", "[flags.x]", "sets x in flags, which is not a flag"),
        ("[flags]", "[[flags]]", "needs flags in the file as a table; it is [{"),
        ("{ proj_out_dim = 8 }", "8", "needs 8 in axes.width.values as a table; it is 8."),
        ('[axes.width]\ntitle = "width"', "[axes.width]", "needs title in axes.width as text"),
        ("[axes.width]", "[axes.width]\nonly.head = ['x']", "name an axis before it"),
        (
            "[axes.width]",
            "[axes.width]\nfirst_stage = true",
            "axis 'width'; add the table [first_stage]",
        ),
        ("[axes.width]", "[axes.width]\nfirst_stage = 1", "as true or false; it is 1"),
        ("[axes.width]", "[axes.to]", "has axes.to, a name with a meaning in orders"),
        ("values.8", "valuse.8", "has the unknown key 'valuse' in axes.width"),
        ("[[orders]]", "[orders]", "needs orders in the file as a list"),
        ('claim = "16', 'clam = "16', "needs claim in orders as text; it is missing"),
        ('claim = "16 above 8"', 'claim = "a"\nx = 1', "unknown key 'x' in the order 'a'"),
        ('higher = { width = "16" }', "", "needs higher in the order '16 above 8' as a table"),
        ('{ width = "16" }', "{ width = 16 }", "needs width in higher of the order"),
        ('{ width = "16" }', '{ widht = "16" }', "has no axis 'widht' (did you mean width?)."),
        ('{ width = "16" }', '{ width = "32" }', "has no cell with {'width': '32'}"),
        ('{ width = "16" }', '{ to = { width = "16" } }', "needs from in higher of the order"),
        ('claim = "16 above 8"', 'claim = "a"\nmargin = "x"', "needs margin in the order 'a' as"),
        ('claim = "16 above 8"', 'claim = "a"\nspread = true', "needs two cells on each side"),
        (
            'claim = "16 above 8"',
            'claim = "a"\nspread = true\nmetric = "loss"',
            "they can only be those of accuracies",
        ),
        ("[figure]", "[figur]", "has the unknown key 'figur' in the file"),
        ('kind = "bars"', 'kind = "pie"', "has figure.kind = 'pie'; it is one of bars, lines"),
        ('x = "width"', 'x = "size"', "has no axis 'size'; its axes are width."),
        ('x = "width"', 'x = "width"\nseries = "b"', "has no axis 'b'"),
        ('x = "width"', 'x = "width"\ncolour = "b"', "has the unknown key 'colour' in figure"),
        ("[flags]", "[compose]\naugmentation = ['a']\n[flags]", "has no axis 'a'"),
        ("[flags]", "[compose]\naugmentation = 'a'\n[flags]", "needs augmentation in compose as"),
        ("[flags]", "[compose]\nno_flag = ['width']\n[flags]", "sets no_flag in compose"),
        ("[flags]", "[columns]\nloss = 1\n[flags]", "needs loss in columns as text"),
        ("[flags]", "[tuning]\nseed = 1\n[flags]", "needs axes in tuning as a table"),
        ("seeds =", "minutes = 'x'\nseeds =", "needs minutes in the file as a number"),
        ("seeds =", "notes = 1\nseeds =", "needs notes in the file as text; it is 1."),
        ("seeds =", "measurement = 'x'\nseeds =", "has measurement = 'x'; it is one of"),
        ("seeds =", "flagfile = 'none.flags'\nseeds =", "names the flagfile none.flags, which"),
        ("seeds =", "flagfile = 'bad.flags'\nseeds =", "bad.flags has the line 'what?'"),
        ("seeds =", "flagfile = 'own.flags'\nseeds =", "sets seed in the flagfile own.flags"),
        ('"bars"', '"heatmap"', "has figure.kind = 'heatmap' without series; name the axis"),
        ("[figure]", "[figure]\nmetrics = { a = 'b' }", "has figure.metrics without y_title"),
        (
            "[figure]",
            "[figure]\nseries = 'width'\nmetrics = { a = 'b' }",
            "drawn as bars side by side; set kind to 'bars', and leave series and metric out.",
        ),
    ],
)
def test_a_file_that_describes_no_study_is_refused(tmp_path, old, new, message):
    (tmp_path / "bad.flags").write_text("--image_size=16\nwhat?\n")
    (tmp_path / "own.flags").write_text("--seed=3\n")
    assert old in tiny_studies.TEXT
    with pytest.raises(errors.UserError) as raised:
        tiny_studies.read(tmp_path, tiny_studies.TEXT.replace(old, new, 1))
    assert message in str(raised.value)
    assert str(tmp_path) in str(raised.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed = 7", "seed = true", "needs seed in tuning as a whole number; it is True."),
        ("seed = 7", "seed = 7\nper = ['head']", "has no axis 'head'"),
        ("[tuning.axes.rate]", "[tuning.axes.width]", "has the axis 'width' twice"),
        ('only.width = ["16"]', 'only.width = ["61"]', "not a label of width; they are 8, 16."),
        ('only.width = ["16"]', 'only.width = "16"', "as a list; it is '16'."),
        ("learning_rate = 1.0", "learn = 1.0", "sets learn in tuning.axes.rate.values.rate 1"),
        (
            "{ learning_rate = 1.0 }",
            "{ first_stage = {} }",
            "has first_stage in some values of the tuned axis 'rate'; give it to all or none",
        ),
    ],
)
def test_tuning_that_has_no_meaning_is_refused(tmp_path, old, new, message):
    assert old in TUNED
    with pytest.raises(errors.UserError) as raised:
        tiny_studies.read(tmp_path, TUNED.replace(old, new, 1))
    assert message in str(raised.value)


def test_a_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(errors.UserError, match="cannot be read"):
        reading.read(path)
    with pytest.raises(errors.UserError, match="does not exist; correct its path"):
        reading.read(tmp_path / "none.toml")


def test_a_study_without_a_data_set_is_refused(tmp_path):
    study = tiny_studies.read(tmp_path, tiny_studies.TEXT.replace('dataset = "digits"', ""))
    with pytest.raises(errors.UserError, match="names no data set"):
        tiny_studies.run(study, {"width": "8"})
    assert tiny_studies.run(study, {"width": "8"}, dataset="digits").flags["dataset"] == "digits"


def test_settings_that_cannot_be_combined_are_refused_before_training(tmp_path):
    text = tiny_studies.TEXT.replace("proj_out_dim = 8", "proj_out_dim = -1")
    with pytest.raises(errors.UserError, match="tiny, tiny: 8, seed 0: --proj_out_dim must be"):
        study_plan.check(tiny_studies.read(tmp_path, text), {}, str(tmp_path))


def test_the_identity_of_a_run_is_that_of_what_it_computes(tmp_path):
    study = tiny_studies.read(tmp_path)
    run = tiny_studies.run(study, {"width": "16"})
    same = [
        cells.Run(dict(reversed(run.flags.items()))),
        cells.Run({**run.flags, "data_dir": "/elsewhere"}),
        cells.Run({**run.flags, "model_dir": "/elsewhere"}),
        cells.Run({**run.flags, "image_size": config.Config().image_size}),
        dataclasses.replace(run, title="another"),
    ]
    assert {one.identity for one in same} == {run.identity}
    others = [
        tiny_studies.run(study, {"width": "16"}, 1),
        tiny_studies.run(study, {"width": "8"}),
        tiny_studies.run(study, {"width": "16"}, temperature=0.5),
        dataclasses.replace(run, parent=run),
        dataclasses.replace(run, parent=tiny_studies.run(study, {"width": "8"})),
    ]
    assert len({one.identity for one in [run, *others]}) == 6


def test_the_images_of_a_folder_are_named_by_its_path(tmp_path):
    study = tiny_studies.read(tmp_path)
    runs = [
        tiny_studies.run(study, {"width": "8"}, dataset="image_folder", data_dir=path)
        for path in ("/a", "/b")
    ]
    assert runs[0].identity != runs[1].identity


def test_fine_tuning_with_a_default_of_pretraining_is_another_run(tmp_path):
    # Without the flag, fine-tuning has a default of its own.
    study = tiny_studies.read(tmp_path, STAGES)
    default = config.Config().weight_decay
    given = tiny_studies.run(study, {"width": "8"}, weight_decay=default)
    assert given.identity != tiny_studies.run(study, {"width": "8"}).identity


def test_a_cell_starts_from_the_run_of_its_first_stage(tmp_path):
    study = tiny_studies.read(tmp_path, STAGES.replace("values.8", "first_stage = true\nvalues.8"))
    small, large = (tiny_studies.run(study, {"width": w}, seed=3) for w in ("8", "16"))
    assert small.parent.flags["proj_out_dim"] == 8
    assert "proj_out_dim" not in small.flags
    assert small.parent.flags["train_epochs"] == 5
    assert small.parent.flags["mode"] == "train"
    assert f"--checkpoint=/root/cells/{small.parent.identity}" in small.arguments("/root")
    assert f"--model_dir=/root/cells/{small.identity}" in small.arguments("/root")
    assert small.identity != large.identity
    shared = tiny_studies.read(tmp_path, STAGES)
    one, other = (tiny_studies.run(shared, {"width": w}) for w in ("8", "16"))
    assert one.parent.identity == other.parent.identity


def test_only_cells_whose_value_has_a_first_stage_start_from_one(tmp_path):
    text = STAGES.replace("{ proj_out_dim = 8 }", "{ first_stage = { proj_out_dim = 8 } }")
    study = tiny_studies.read(tmp_path, text)
    started, scratch = (tiny_studies.run(study, {"width": w}) for w in ("8", "16"))
    assert started.parent.flags["proj_out_dim"] == 8
    assert started.parent.flags["train_epochs"] == 5
    assert "proj_out_dim" not in started.flags
    assert scratch.parent is None
    assert scratch.flags["proj_out_dim"] == 16


def test_the_flagfile_of_a_value_sets_what_the_study_does_not(tmp_path):
    (tmp_path / "one.flags").write_text(
        "--mode=train_then_eval\n--train_epochs=99\n--temperature=0.7\n--proj_out_dim=3\n"
    )
    text = STAGES.replace(
        "{ proj_out_dim = 8 }",
        '{ flagfile = "one.flags", proj_out_dim = 8, first_stage = { flagfile = "one.flags" } }',
    )
    run = tiny_studies.run(tiny_studies.read(tmp_path, text), {"width": "8"})
    assert (run.flags["temperature"], run.parent.flags["temperature"]) == (0.7, 0.7)
    assert (run.flags["train_epochs"], run.parent.flags["train_epochs"]) == (3, 5)
    assert (run.flags["proj_out_dim"], run.parent.flags["proj_out_dim"]) == (8, 3)


def test_given_flags_win_except_over_what_an_axis_varies(tmp_path):
    study = tiny_studies.read(tmp_path)
    assert tiny_studies.run(study, {"width": "8"}, train_epochs=9).flags["train_epochs"] == 9
    with pytest.raises(errors.UserError, match="--proj_out_dim is what the study tiny varies"):
        tiny_studies.run(study, {"width": "8"}, proj_out_dim=9)


def test_an_axis_that_only_some_cells_have_multiplies_only_those(tmp_path):
    study = reading.read(flagfiles.STUDIES / "projection_head.toml")
    assert study.all_labels() == [
        *(
            {"head": head, "width": w}
            for head in ("nonlinear", "linear")
            for w in ("32", "128", "512")
        ),
        {"head": "none"},
    ]
    assert [definition.described(one) for one in study.all_labels()][-2:] == ["linear, 512", "none"]


def test_pairs_of_operations_are_composed_to_a_list_with_each_once():
    study = reading.read(flagfiles.STUDIES / "augmentation_pairs.toml")
    assert len(study.all_labels()) == 49
    lists = {tiny_studies.run(study, one).flags["augmentation"] for one in study.all_labels()}
    assert {"crop,color", "color,crop", "blur"} <= lists
    assert len(lists) == 49


def test_settings_are_tried_for_each_cell_that_has_them_on_other_images(tmp_path):
    study = tiny_studies.read(tmp_path, TUNED)
    tried = tuning.trials(study, {"eval_split": "test"})
    assert [one.tuned for one in tried] == [{}, {"rate": "rate 1"}, {"rate": "rate 2"}]
    # Whatever is given for the results, no setting is chosen on those images.
    assert {one.cell.run.flags["eval_split"] for one in tried} == {"train[80%:]"}
    assert {one.cell.run.flags["seed"] for one in tried} == {7}
    per = tiny_studies.read(tmp_path, TUNED.replace("seed = 7", "seed = 7\nper = []"))
    assert len(tuning.trials(per, {})) == 1  # For all cells together, by the first one.


def test_the_settings_with_the_highest_accuracy_are_chosen(tmp_path, monkeypatch):
    study = tiny_studies.read(tmp_path, TUNED)
    tried = tuning.trials(study, {})
    hits = [[True, False], [True, False], [True, True]]
    results = {
        one.cell.run.identity: tiny_studies.outcome(study, one.cell.labels, 7, right)
        for one, right in zip(tried, hits, strict=True)
    }
    monkeypatch.setattr(tuning.outcomes, "read", lambda cell, *_: results[cell.run.identity])
    done = dict.fromkeys(results, tiny_studies.record())
    chosen = tuning.choose(tried, done, str(tmp_path))
    assert chosen[("width", "16"),] == ({"rate": "rate 2"}, {"rate 1": 0.5, "rate 2": 1.0})
    trained = tuning.cells_of(study, {"eval_split": "test"}, chosen)
    assert [one.run.flags.get("learning_rate") for one in trained] == [None, None, 2.0, 2.0]
    assert {one.run.flags["eval_split"] for one in trained} == {"test"}

    # One that failed is not chosen; while one is missing, nothing is.
    best = tried[2].cell.run.identity
    failed = {**done, best: tiny_studies.record("failed")}
    assert tuning.choose(tried, failed, "")[("width", "16"),][0] == {"rate": "rate 1"}
    for record in ({}, {best: tiny_studies.record("interrupted")}):
        rest = {**{key: value for key, value in done.items() if key != best}, **record}
        assert list(tuning.choose(tried, rest, "")) == [(("width", "8"),)]
        assert [
            c.labels["width"] for c in tuning.cells_of(study, {}, tuning.choose(tried, rest, ""))
        ] == ["8", "8"]


def test_the_flags_of_a_study_are_not_those_of_its_cells():
    names = {field.name for field in dataclasses.fields(config.Config)}
    assert set(cells.OWN_FLAGS) < names
    assert {"study", "dry_run", "jobs", "launcher"} < set(cells.OWN_FLAGS)
