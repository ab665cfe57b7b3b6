"""Files of labels that give an image several labels, and how they are read."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_several

from simclr_tf import errors
from simclr_tf.data import labels, sources, subsets


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny_several.folder(tmp_path_factory)


def _open(root, content, **settings):
    path = root / f"labels-{abs(hash(content))}.csv"
    path.write_text(content)
    found = sources.open_source(
        "image_folder", data_dir=str(root), seed=0, labels=str(path), **settings
    )
    path.unlink()
    return found


def _values(source, split):
    names, values = subsets.read_names_and_labels(source, split)
    return dict(zip(names, values.tolist(), strict=True))


LISTS = "file,labels\ntest/0.png,cat|dog\ntest/1.png,\ntest/2.png,dog\n"


@pytest.mark.parametrize("content", [LISTS, LISTS.replace("|", ";"), LISTS.replace(",", "\t")])
def test_a_list_names_the_classes_that_an_image_shows(root, content):
    source = _open(root, content.replace("\n", "\n", 1) + "test/3.png\n")
    assert source.several_labels and source.class_names == ("cat", "dog")
    assert "adds an image that shows no class." in " ".join(source.notes)
    found = _values(source, "train") | _values(source, "validation")
    assert found == {
        "test/0.png": [1, 1],
        "test/1.png": [0, 0],
        "test/2.png": [0, 1],
        "test/3.png": [0, 0],
    }


def test_a_column_for_each_class_says_what_is_not_known(root):
    rows = "test/0.png,p1,train,1,0\ntest/1.png,p2,train,0,\ntest/2.png,p3,test,0.0,1.0\n"
    source = _open(root, f"file,Patient,split,dog,cat\n{rows}", group="patient")
    assert source.class_names == ("dog", "cat")
    assert _values(source, "train") == {"test/0.png": [1, 0], "test/1.png": [0, -1]}
    assert _values(source, "test") == {"test/2.png": [0, 1]}
    assert source.groups == {"test/0.png": "p1", "test/1.png": "p2", "test/2.png": "p3"}
    notes = " ".join(source.notes)
    assert "Images of 'train' show 0.5 of 2 classes on average; 1 of 2 show none (1 label" in notes
    assert "The split 'train' has no images of 1 of 2 classes: cat." in notes


REFUSED = {
    "both separators": ("file,labels\na,x|y\nb,x;y\n", "both | and ; (lines 2, 3)", "use |"),
    "commas": ('file,labels\na,"x,y"\n', "a comma may be part of a name", "use | between"),
    "an empty label": ("file,labels\na,x||y\n", "an empty label in 'x||y'", "remove the |"),
    "label and labels": ("file,label,labels\na,x,y\n", "label is for one class", "Rename all but"),
    "a class twice": ("file,x,x\na,1,0\n", "2 of them are named 'x'", "its own name"),
    "other values": (
        "file,x,age\na,1,31\n",
        "'age' is taken as a class, and has '31' in it in line 2",
        "remove the column",
    ),
    "minus one": ("file,x,y\na,1,-1\n", "'y' is taken as a class, and has '-1'", "write 1 if"),
    "only minus one": ("file,x\na,-1\nb,1\n", "has '-1' in it in line 2", "write 1 if"),
    "words": ("file,x\na,True\nb,False\n", "has 'True' in it in line 2", "write 1 if"),
    "no class": ("file,labels\ntest/0.png,\n", "is empty in all lines", "--labels=none"),
    "a short row": ("file,x,y\na,1,0\nb,1\n", "has 2 fields, and the first line 3", "each class"),
    "no labels at all": ("file,name\na,cat\n", "must name the columns", "column of 0 and 1"),
    "contradiction": (
        "file,labels\ntest/0.png,x|y\ntest/0.png,x\n",
        "the label 'x|y' in line 2 and 'x' in line 3",
        "remove one",
    ),
}


@pytest.mark.parametrize(("content", "problem", "remedy"), REFUSED.values(), ids=REFUSED)
def test_what_can_be_read_in_two_ways_is_refused(root, content, problem, remedy):
    with pytest.raises(errors.UserError) as error:
        _open(root, content)
    assert problem in str(error.value) and remedy in str(error.value)


def test_labels_of_one_class_that_look_like_several_are_pointed_out(root):
    source = _open(root, LISTS.replace("labels", "label"))
    assert not source.several_labels and source.class_names == ("cat|dog", "dog")
    assert any("rename the column label to labels" in note for note in source.notes)


def test_the_order_of_a_list_is_no_contradiction(root):
    source = _open(root, "file,labels\ntest/0.png,x|y\ntest/0.png,y|x\ntest/1.png,x\n")
    assert sum(source.splits.values()) == 2


def test_a_tenth_is_held_out_by_the_rarest_class_of_each_image(root):
    rows = [f"train/{i}.png,common{'|rare' if i % 2 else ''}\n" for i in range(40)]
    source = _open(root, "file,labels\n" + "".join(rows))
    held = np.array(list(_values(source, "validation").values()))
    assert held.shape == (4, 2) and held[:, 1].sum() == 2


def test_excluded_images_have_no_labels_and_the_fingerprint_sees_every_label(root):
    source = _open(root, LISTS.replace("labels", "labels,split").replace("\n", ",train\n", 4))
    whole = _open(root, LISTS.replace("dog\n", "cat\n", 1))
    access = source.reader.random_access(source.slices("train"), excluded=["test/0.png"])
    by_name = {access.name(i): access.labels[i].tolist() for i in range(3)}
    assert by_name["test/0.png"] == [-1, -1] and by_name["test/2.png"] == [0, 1]
    marks = {labels.fingerprint(one, "train") for one in (source, whole)}
    assert len(marks) == 2 and None not in marks
