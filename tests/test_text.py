"""Suggestions and lists of messages."""

import pytest

from simclr_tf import text


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("cifr10", " (did you mean cifar10 or cifar100?)"),
        ("RESNET", " (did you mean resnet?)"),
        ("photos", ""),
    ],
)
def test_similar_names_are_suggested_whatever_their_case(name, want):
    assert text.suggestion(name, ["cifar10", "cifar100", "resnet"]) == want


def test_at_most_three_names_are_suggested():
    known = [f"size{i}" for i in range(5)]
    assert text.suggestion("size", known).count("size") == 3


@pytest.mark.parametrize(
    ("items", "want"),
    [([], ""), (["a"], "a"), (list("abc"), "a, b, c"), (list("abcde"), "a, b, c and 2 more")],
)
def test_a_long_list_is_cut_short_and_counted(items, want):
    assert text.shortened(items) == want


def test_the_last_checkpoint_is_named_if_there_is_one():
    assert text.last_checkpoint("runs/x/ckpt-7") == "the last complete checkpoint is runs/x/ckpt-7"
    assert text.last_checkpoint(None) == "there is no checkpoint yet"


@pytest.mark.parametrize(
    ("error", "want"),
    [
        (ValueError("No such file.\nIn a graph"), "No such file"),
        (ValueError("{{function_node f}} It is full. [Op:SaveV2]"), "It is full"),
        (RuntimeError(""), "RuntimeError"),
    ],
)
def test_the_reason_of_an_error_is_its_first_line_or_its_type(error, want):
    assert text.reason(error) == want


def test_bytes_are_written_in_gib():
    assert text.gib(3 * 2**29) == "1.50 GiB"


@pytest.mark.parametrize(
    ("value", "near", "want"), [(12, 5, 4), (12, 8, 6), (7, 5, 7), (7, 3, 1), (1, 9, 1)]
)
def test_the_nearest_divisor_is_found(value, near, want):
    assert text.nearest_divisor(value, near) == want
