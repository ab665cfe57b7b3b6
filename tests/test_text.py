"""Suggestions and lists of messages."""

import re

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
        (ValueError("/a; No such file [Op:ReadFile] name: "), "/a; No such file"),
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


def test_a_message_is_printed_whole_up_to_its_longest_length():
    message = "word " * 119 + "words"
    assert text.limited(message) == message
    assert len(message) == text.MAX_MESSAGE == 600


def test_a_long_path_in_a_message_is_cut_in_its_middle():
    message = f"The image {'folder/' * 200}a.png cannot be read; remove it."
    want = r"The image (folder/)+f\[\.\.\.\].*/a.png cannot be read; remove it\."
    assert re.fullmatch(want, text.limited(message))
    assert len(text.limited(message)) <= 200


def test_a_long_message_keeps_its_beginning_and_its_end():
    message = "The settings differ: " + "one is 1, " * 200 + "; use those of the run."
    cut = text.limited(message)
    assert cut.startswith("The settings differ: one is 1")
    assert cut.endswith("; use those of the run.")
    assert 590 < len(cut) <= 600
