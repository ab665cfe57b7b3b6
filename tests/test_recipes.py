"""Every recipe parses, describes a legal run, and says what to expect of it."""

import dataclasses
import json
import pathlib
import re

from absl import flags
import pytest

from flags import command_line
from simclr_tf import config, errors
from simclr_tf.config import metadata

ROOT = pathlib.Path(__file__).parents[1]
RECIPES = sorted((ROOT / "flags" / "recipes").glob("*.flags"))
HEADER = ("What", "Run", "Where", "Takes", "Gives", "Differs")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_is_runnable_and_documented(path):
    text = path.read_text()
    assert [name for name in HEADER if f"# {name}: " not in text] == []
    assert str(path.relative_to(ROOT)) in text, "its Run line must name its own file"
    command = command_line.parse(["run.py", f"--flagfile={path}", "--model_dir=/nowhere"])
    config.validate(command.config)


def test_the_headers_have_what_small_forms_of_the_recipes_reached():
    published = json.loads((ROOT / "docs" / "studies" / "recipes.json").read_text())
    found = {
        path.stem: re.findall(r"^# Small: +(\S+) of (\S+) images", path.read_text(), re.M)
        for path in RECIPES
    }
    for measured_itself in ("digits", "cifar10_cpu"):
        assert found.pop(measured_itself) == []
    assert found == {
        cell["labels"]["recipe"]: [(f"{cell['accuracy']:.1%}", f"{published['images']:,}")]
        for cell in published["cells"]
    }


@pytest.mark.parametrize("words", [1, 2])
def test_a_recipe_is_found_from_any_directory(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    flag = "--flagfile=flags/recipes/cifar10_resnet50.flags"
    arguments = flag.split("=") if words == 2 else [flag]
    assert command_line.parse(["run.py", *arguments, "--seed=3"]).config.image_size == 32


def test_a_flagfile_in_the_current_directory_is_used_instead_of_a_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flags" / "recipes").mkdir(parents=True)
    (tmp_path / "flags/recipes/cifar10_resnet50.flags").write_text("--dataset=mine\n")
    command = command_line.parse(["run.py", "--flagfile=flags/recipes/cifar10_resnet50.flags"])
    assert (command.config.dataset, command.config.image_size) == ("mine", 224)


def test_the_decay_of_a_recipe_can_be_unset_as_the_error_message_says():
    recipe = f"--flagfile={ROOT}/flags/recipes/cifar10_supcon_linear.flags"
    arguments = ["run.py", recipe, "--model_dir=/nowhere", "--learning_rate_decay=cosine"]
    for remedy in ("--decay_epochs=", "--decay_factor=0.1"):
        with pytest.raises(errors.UserError, match=f"or give {remedy} if a flagfile sets it"):
            config.validate(command_line.parse(arguments).config)
        arguments.append(remedy)
    config.validate(command_line.parse(arguments).config)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_lists_only_what_differs_from_the_defaults(path):
    command = command_line.parse(["run.py", f"--flagfile={path}"])
    mode = f"--train_mode={command.config.train_mode}"
    defaults = command_line.parse(["run.py", "--dataset=none", mode]).config
    named = [
        line.lstrip("-").split("=")[0]
        for line in path.read_text().splitlines()
        if line.startswith("--")
    ]
    names = [name if hasattr(defaults, name) else name.removeprefix("no") for name in named]
    same = [n for n in names if getattr(command.config, n) == getattr(defaults, n)]
    # These say what a recipe trains on which data and how, so they may be listed even at their
    # defaults.
    allowed = {"mode", "train_mode", "dataset", "image_size", "optimizer", "learning_rate"}
    assert set(same) <= allowed


def test_the_recipes_of_the_papers_exist():
    assert {path.stem for path in RECIPES} >= {
        "digits",
        "cifar10_resnet18",
        "cifar10_resnet50",
        "imagenet_resnet50",
        "imagenet_linear",
        "imagenet_finetune_1pct",
        "imagenet_finetune_10pct",
        *(f"imagenet_linear_{n}pct" for n in (1, 10)),
        *(f"cifar10_finetune_{n}pct" for n in (1, 10)),
        *(f"cifar10_{kind}_resnet50" for kind in ("supcon", "supervised")),
        *(f"imagenet_{k}_resnet{n}" for k in ("supcon", "supervised") for n in (50, 200)),
        "cifar10_supcon_linear",
        *(f"imagenet_supcon_linear{by}" for by in ("", "_lars", "_momentum")),
    }


def test_every_recipe_is_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    for path in RECIPES:
        tail = path.name.rpartition("_")[2]
        assert f"{path.name}`" in readme or f"`..._{tail}`" in readme, path.name


def test_flags_and_config_fields_have_the_same_names():
    defined = {f.name for f in flags.FLAGS.flags_by_module_dict()["flags.definitions"]}
    assert defined == {field.name for field in dataclasses.fields(config.Config)}
    sections = metadata.by_section(dataclasses.fields(config.Config))
    assert sum(map(len, sections.values())) == len(defined)
