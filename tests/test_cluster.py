"""The variable TF_CONFIG, which says what the workers are."""

import json

import pytest

from simclr_tf import cluster, errors

PAIR = {"worker": ["a:2222", "b:2223"]}


def read(addresses, kind="worker", index=0):
    content = {"cluster": addresses, "task": {"type": kind, "index": index}}
    return cluster.from_environment({"TF_CONFIG": json.dumps(content)})


def refusal(environment):
    with pytest.raises(errors.UserError) as raised:
        cluster.from_environment({"TF_CONFIG": environment})
    return str(raised.value)


def test_the_first_worker_is_the_chief():
    assert read(PAIR) == cluster.Cluster(("a:2222", "b:2223"), 0)
    assert read(PAIR).is_chief
    assert not read(PAIR, index=1).is_chief


def test_a_task_of_type_chief_is_the_first_worker():
    addresses = {"chief": ["c:1"], "worker": ["a:1", "b:1"]}
    assert read(addresses, "chief") == cluster.Cluster(("c:1", "a:1", "b:1"), 0)
    assert read(addresses, "worker", 1) == cluster.Cluster(("c:1", "a:1", "b:1"), 2)


@pytest.mark.parametrize(
    "content", ["", "{}", '{"cluster": {}}', '{"cluster": {"worker": ["a:1"]}}']
)
def test_a_single_process_is_not_a_cluster(content):
    assert cluster.from_environment({"TF_CONFIG": content}) is None
    assert cluster.from_environment({}) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{'cluster'", "TF_CONFIG is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"cluster": 3}', "not an object"),
        ('{"cluster": {"ps": ["a:1"], "worker": ["b:1"]}}', "tasks of type 'ps'"),
        ('{"cluster": {"worker": ["a", "b:1"]}}', "'a', which is not HOST:PORT"),
        ('{"cluster": {"worker": ["a:99999", "b:1"]}}', "'a:99999', which is not HOST:PORT"),
        ('{"cluster": {"worker": ["a:1", "a:1"]}}', "a:1 more than once"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}}', "which of the workers this process is"),
    ],
)
def test_a_variable_that_cannot_be_used_is_refused_with_the_remedy(content, message):
    found = refusal(content)
    assert message in found
    assert "\n" not in found


def test_an_index_outside_is_refused_with_both_numbers():
    with pytest.raises(errors.UserError, match="the index 2, and its cluster has 2 of type"):
        read(PAIR, index=2)
    with pytest.raises(errors.UserError, match="the index -1"):
        read(PAIR, index=-1)
    with pytest.raises(errors.UserError, match="the type 'evaluator'"):
        read(PAIR, "evaluator")


def test_addresses_have_a_host_and_a_port():
    assert cluster.host_and_port("node-1.local:2222") == ("node-1.local", 2222)
    assert cluster.host_and_port("[::1]:80") == ("::1", 80)


def test_the_variable_that_a_launcher_sets_is_read_back():
    variable = cluster.to_variable(["a:1", "b:2"], 1)
    assert cluster.from_environment({"TF_CONFIG": variable}) == cluster.Cluster(("a:1", "b:2"), 1)
