"""Images at any depth: without labels, or with those of a CSV file."""

import collections
import dataclasses

import pytest
import test_command_line
import test_folder
import tiny_runs

from simclr_tf import config as config_lib
from simclr_tf import errors
from simclr_tf.data import sources
from simclr_tf.runs import dataset, resuming, unreadable

TREE = [f"{year}/{month}/{i}.png" for year in (2018, 2019) for month in "12" for i in range(5)]


def _open(root, labels="none", seed=0):
    return sources.open_source("image_folder", data_dir=str(root), seed=seed, labels=str(labels))


def _write(path, *rows, separator=","):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(separator.join(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def tree(tmp_path):
    """A folder by year and month, 20 images; January's are of cats, February's of dogs."""
    test_folder._fill(tmp_path / "tree", TREE)
    return tmp_path / "tree"


def _rows(paths=TREE, header=("file", "label")):
    return [header, *((path, "cat" if "/1/" in path else "dog") for path in paths)]


# Without labels.


def test_images_at_any_depth_are_one_unlabelled_split(tmp_path):
    paths = ["0.png", "a/1.png", "a/b/2.png", "c/d/e/f/g/3.png"]
    source = _open(test_folder._fill(tmp_path, paths))
    assert (source.class_names, source.notes) == (None, ())
    assert test_folder._listed(source, "train") == dict.fromkeys(paths, -1)


def test_splits_are_kept_without_labels_if_all_images_are_in_them(tmp_path):
    paths = ["Train/a/b/c/0.png", "Train/1.png", "test/2.png", "test/x/3.png"]
    source = _open(test_folder._fill(tmp_path, paths))
    assert dict(source.splits) == {"train": 2, "test": 2}
    assert test_folder._listed(source, "test") == {"test/2.png": -1, "test/x/3.png": -1}
    test_folder._fill(tmp_path, ["more/4.png"])
    source = _open(tmp_path)
    assert dict(source.splits) == {"train": 5}
    assert source.notes == (
        "All images are one split, 'train', because not only Train, test but also more has images.",
    )


def test_each_folder_is_read_once_whatever_links_lead_to_it(tmp_path):
    test_folder._fill(tmp_path / "photos", ["b/c/0.png", "b/1.png"])
    test_folder._fill(tmp_path / "elsewhere", ["2.png", "deep/3.png"])
    for name, target in {
        "a": tmp_path / "photos" / "b",
        "b/up": tmp_path / "photos",
        "x": tmp_path / "elsewhere" / "deep",
        "y": tmp_path / "elsewhere",
    }.items():
        (tmp_path / "photos" / name).symlink_to(target)
    source = _open(tmp_path / "photos")
    want = {"b/c/0.png", "b/1.png", "x/3.png", "y/2.png"}
    assert set(test_folder._listed(source, "train")) == want
    assert source.notes == (
        "Skipped links to a folder that contains them: b/up.",
        "Skipped folders that are read under another name: a, y/deep.",
    )


def test_layouts_that_are_too_deep_offer_to_read_them_without_labels(tree):
    test_folder._fill(tree, ["2018/1/night/0.png"])
    with pytest.raises(errors.UserError, match=r"too deep .*; or read all .* \(--labels=none\)"):
        test_folder._open(tree)
    assert dict(_open(tree).splits) == {"train": 21}


# With a file of labels.


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_a_file_labels_images_at_any_depth(tree, separator, start):
    rows = _rows(header=(f"{start}File", " LABEL "))
    source = _open(tree, _write(tree / "labels.csv", *rows, separator=separator))
    assert source.class_names == ("cat", "dog")
    assert dict(source.splits) == {"train": 18, "validation": 2}
    found = test_folder._listed(source, "train") | test_folder._listed(source, "validation")
    assert found == {path: int("/2/" in path) for path in TREE}
    assert collections.Counter(test_folder._listed(source, "validation").values()) == {0: 1, 1: 1}
    assert source.notes == (
        "Held out 2 of 20 images, a tenth of each class drawn with seed 0, as the split "
        "'validation'.",
    )


def test_the_draw_of_what_is_held_out_depends_on_the_seed_alone(tree):
    path = _write(tree / "labels.csv", *_rows())
    draws = [
        frozenset(test_folder._listed(_open(tree, path, seed), "validation")) for seed in (0, 0, 1)
    ]
    assert draws[0] == draws[1] != draws[2]


def test_columns_may_have_any_order_and_further_ones_are_ignored(tree):
    path = _write(
        tree / "labels.csv",
        ("width", "label", "Split", "file"),
        ("5", "dog", "Train", "2018/1/0.png"),
        ("5", "cat", "train", "2018/1/1.png"),
        ("5", " cat ", "VAL", "2018/2/0.png"),
        ("5", "", "extra", '"2019/1/0.png"'),
        (),
    )
    source = _open(tree, path)
    assert dict(source.splits) == {"extra": 1, "train": 2, "val": 1}
    assert test_folder._listed(source, "train") == {"2018/1/0.png": 1, "2018/1/1.png": 0}
    assert test_folder._listed(source, "val") == {"2018/2/0.png": 0}
    assert test_folder._listed(source, "extra") == {"2019/1/0.png": -1}


def test_images_that_are_not_listed_are_left_out_and_counted(tree):
    path = _write(tree / "labels.csv", *_rows(TREE[:16]))
    source = _open(tree, path)
    assert sum(source.splits.values()) == 16
    assert source.notes[1] == (
        f"Left out 4 images that {path} does not list (2019/2/1.png, 2019/2/2.png, 2019/2/3.png "
        "and 1 more). A row with an empty label adds an unlabelled image."
    )


def test_images_without_a_label_are_a_split_of_their_own(tree):
    rows = [*_rows(TREE[:15]), *((path, "") for path in TREE[15:])]
    source = _open(tree, _write(tree / "labels.csv", *rows))
    assert dict(source.splits) == {"train": 13, "validation": 2, "unlabeled": 5}
    assert set(test_folder._listed(source, "unlabeled").values()) == {-1}
    assert "The 5 images without a label are 'unlabeled'." in source.notes


def test_an_unlabelled_test_split_of_a_file_leads_to_a_held_out_one(tree):
    rows = [("file", "label", "split")]
    rows += [(path, "cat" if "/1/" in path else "dog", "train") for path in TREE[:16]]
    rows += [(path, "", "test") for path in TREE[16:]]
    source = _open(tree, _write(tree / "labels.csv", *rows))
    assert dict(source.splits) == {"test": 4, "train": 14, "validation": 2}


@pytest.mark.parametrize(
    "written",
    ["2018\\1\\0.png", "./2018/1/0.png", "2018//1/0.png", " 2018/1/0.png", "{root}/2018/1/0.png"],
)
def test_paths_may_be_written_in_other_ways(tree, written):
    rows = [*_rows(TREE[1:]), (written.format(root=tree), "cat")]
    source = _open(tree, _write(tree / "labels.csv", *rows))
    assert sum(source.splits.values()) == 20


def test_names_in_another_unicode_form_are_found(tree):
    test_folder._fill(tree, ["cafe\u0301.png"])
    rows = [*_rows(), ("caf\u00e9.png", "cat")]
    assert sum(_open(tree, _write(tree / "labels.csv", *rows)).splits.values()) == 21


def test_images_may_be_named_through_links(tree):
    (tree / "latest").symlink_to(tree / "2019")
    rows = [("file", "label"), ("latest/1/0.png", "cat"), ("2018/1/0.png", "dog")]
    source = _open(tree, _write(tree / "labels.csv", *rows))
    assert set(test_folder._listed(source, "train")) == {"latest/1/0.png", "2018/1/0.png"}


FILES = {
    "no header": ("a.png,cat\n", "must name the columns file, label .* which is 'a.png, cat'; add"),
    "empty": ("", "in its first line, which is empty; add"),
    "no column label": ("file;class\na.png;x\n", "in its first line, which is 'file, class'"),
    "column twice": ("file,label,Label\n", "has 2 columns 'label'; rename all but one"),
    "only a header": ("file,label\n", "lists no images, only the names of columns; add rows"),
    "too many fields": (
        "file,label\na, b.png,cat\n",
        "Line 2 of the file .* has 3 fields, and the first line 2; write .* in double quotes",
    ),
    "no file": ("file,label\n,cat\n", "Line 2 .* names no file; add it"),
    "open quote": (
        'file,label\n"2018/1/0.png,cat\n',
        r"is not valid CSV \(unexpected end of data\)",
    ),
    "missing images": (
        "file,label\n0.png,cat\n2018/1/0.png,cat\nnone/1.png,dog\n",
        r"lists 2 files of 3 that are not among the images in '.*' \(0.png, none/1.png\) "
        r"\(did you mean 20.*/0.png\?\); correct the column file",
    ),
    "no extension": ("file,label\n3,cat\n", r"\(did you mean 20.*/3.png\?\)"),
    "outside of the folder": ("file,label\n../tree/2018/1/0.png,cat\n", "not among the images"),
    "two labels": (
        "file,label\n2018/1/0.png,cat\n2018/1/0.png,cat\n2018\\1\\0.png,dog\n",
        r"gives 2018/1/0.png the label 'cat' in line 2 and 'dog' in line 4 \(1 such file\); remove",
    ),
    "two splits": (
        "file,label,split\n2018/1/0.png,cat,train\n2018/1/0.png,cat,test\n",
        "the split 'train' in line 2 and 'test' in line 3",
    ),
    "no split": (
        "file,label,split\n2018/1/0.png,cat,train\n2018/1/1.png,cat,\n",
        r"has 1 images without a split \(2018/1/1.png\); give each one",
    ),
    "mixed labels": (
        "file,label,split\n2018/1/0.png,cat,train\n2018/1/1.png,,train\n",
        r"has 1 of 2 images of the split 'train' without a label \(2018/1/1.png\); give",
    ),
}


@pytest.mark.parametrize("content, message", FILES.values(), ids=FILES.keys())
def test_a_file_that_does_not_fit_is_refused_in_one_sentence(tree, content, message):
    path = tree / "labels.csv"
    path.write_text(content)
    with pytest.raises(errors.UserError, match=message) as raised:
        _open(tree, path)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


def test_a_file_that_cannot_be_read_is_refused(tree):
    with pytest.raises(errors.UserError, match=r"none.csv' does not exist; name a CSV file with"):
        _open(tree, tree / "none.csv")
    (tree / "latin.csv").write_bytes(b"file,label\ncaf\xe9.png,cat\n")
    with pytest.raises(errors.UserError, match=r"not UTF-8 text \(its byte 14 is 0xe9\); save it"):
        _open(tree, tree / "latin.csv")
    (tree / "folder.csv").mkdir()
    with pytest.raises(errors.UserError, match=r"folder.csv' cannot be read \(.*; name a CSV file"):
        _open(tree, tree / "folder.csv")


# The data set csv:FILE.


def test_a_csv_file_is_a_data_set_of_the_images_beside_it(tree, tmp_path):
    path = _write(tree / "labels.csv", *_rows())
    source = sources.open_source(f"csv:{path}", data_dir=None, seed=0)
    assert source.name == f"csv:{path}"
    assert dict(source.splits) == {"train": 18, "validation": 2}
    elsewhere = _write(tmp_path / "other" / "labels.csv", *_rows())
    source = sources.open_source(f"csv:{elsewhere}", data_dir=str(tree), seed=0)
    assert dict(source.splits) == {"train": 18, "validation": 2}


@pytest.mark.parametrize("given", ["csv:tree/labels.csv", "csv:~/tree/labels.csv"])
def test_a_run_on_a_csv_file_is_evaluated_from_any_folder(tree, tmp_path, monkeypatch, given):
    _write(tree / "labels.csv", *_rows())
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    stored = test_command_line.parse(f"--dataset={given}").config.to_flagfile()
    monkeypatch.chdir("/")
    read = config_lib.Config.from_flagfile(stored)
    assert read.dataset == f"csv:{tree}/labels.csv"
    read = dataclasses.replace(read, mode="eval")
    assert dataset.open_data(read, eval_split_given=False).eval_split == "validation"


@pytest.mark.parametrize(
    "given, want",
    [
        ("none", "none"),
        ("folders", "folders"),
        ("labels.csv", "{cwd}/labels.csv"),
        ("~/x.TSV", "{cwd}/x.TSV"),
        ("folder", "folder"),
    ],
)
def test_a_file_of_labels_is_stored_with_its_absolute_path(tmp_path, monkeypatch, given, want):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    parsed = test_command_line.parse("--dataset=image_folder", f"--labels={given}").config
    assert parsed.labels == want.format(cwd=tmp_path)


def test_a_remote_file_of_labels_is_checked_like_other_paths():
    for flags in (["--dataset=csv:s3://x/y.csv"], ["--dataset=a", "--labels=s3://x/y.csv"]):
        with pytest.raises(errors.UserError, match=r"=s3://x/y.csv cannot be opened"):
            test_command_line.parse(*flags)


@pytest.mark.parametrize(
    "settings, message",
    [
        (
            {"labels": "folder"},
            r"--labels must be folders, none or the path of a file \(.csv, .*'fo",
        ),
        ({"labels": ""}, "--labels must be .*, got ''"),
        ({"dataset": "cifar10", "labels": "none"}, "applies only to --dataset=image_folder"),
        ({"dataset": "cifar10", "labels": "/a.csv"}, "--labels=/a.csv applies only to"),
        (
            {"dataset": "csv:/b.csv", "labels": "/a.csv"},
            "--labels=/a.csv contradicts --dataset=csv",
        ),
        ({"dataset": "csv:/b.csv", "labels": "none"}, "--labels=none contradicts --dataset=csv"),
        ({"dataset": "csv:"}, "names no file; write it --dataset=csv:FILE"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(settings, message):
    config = dataclasses.replace(config_lib.Config(dataset="image_folder"), **settings)
    with pytest.raises(errors.UserError, match=message):
        config_lib.validate(config)


@pytest.mark.parametrize(
    "data, labels",
    [
        ("image_folder", "none"),
        ("image_folder", "/a.csv"),
        ("csv:/a.csv", "folders"),
        ("csv:/a.csv", "/a.csv"),
    ],
)
def test_labels_of_an_image_folder_are_accepted(data, labels):
    config_lib.validate(config_lib.Config(dataset=data, labels=labels))


# Resuming: the content of the file counts, not its path.


def _facts(path):
    config = config_lib.Config(dataset=f"csv:{path}")
    return resuming._facts(config, dataset.open_data(config, eval_split_given=False))


def test_a_moved_file_of_labels_is_the_same_data_and_other_labels_are_not(tree, tmp_path):
    facts = _facts(_write(tree / "labels.csv", *_rows()))
    tree.rename(tmp_path / "moved")
    assert _facts(tmp_path / "moved" / "labels.csv") == facts
    swapped = [(file, {"cat": "dog", "dog": "cat"}.get(label, label)) for file, label in _rows()]
    other = _facts(_write(tmp_path / "moved" / "labels.csv", *swapped))
    stored, given = config_lib.Config(dataset="csv:/a"), config_lib.Config(dataset="csv:/b")
    assert resuming.changed_settings(stored, given) == []
    (change,) = resuming._changed_data(stored, given, facts, other)
    assert change.name == "labels of the training data"


def test_the_list_of_unreadable_images_belongs_to_the_labels(tree, tmp_path):
    common = config_lib.Config(dataset="image_folder", data_dir=str(tree), model_dir=str(tmp_path))
    for labels, want in (("none", {"labels": "none"}), ("folders", {})):
        config = dataclasses.replace(common, labels=labels)
        unreadable.exclude(config, _open(tree), ["train"])
        data = tiny_runs.json_of(tmp_path / unreadable.LIST)["data"]
        assert data == {"dataset": "image_folder", "data_dir": str(tree), **want}


def test_labels_of_folders_instead_of_a_file_are_other_data():
    config = config_lib.Config(dataset="image_folder")
    facts = {"images": 3, "classes": ["a", "b"]}
    changes = resuming._changed_data(config, config, {**facts, "labels": "1f"}, facts)
    assert [change.name for change in changes] == ["labels of the training data"]
