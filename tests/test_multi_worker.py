"""What each worker passes to the others; replicas in one process stand for those of two workers."""

import numpy as np
import pytest
import replicas
import tensorflow as tf

from simclr_tf import multi_worker


@pytest.fixture
def of_two_workers(monkeypatch):
    monkeypatch.setattr(multi_worker, "num_workers", lambda strategy=None: 2)


def gathered(strategy, values):
    """Returns what each replica has after gathering the rows [2 * replica, 2 * replica + 1]."""

    def on_replica():
        start = 2 * tf.distribute.get_replica_context().replica_id_in_sync_group
        rows = {name: tf.constant(x)[start : start + 2] for name, x in values.items()}
        return multi_worker.gather(
            {name: tf.ensure_shape(x, [2, *x.shape[1:]]) for name, x in rows.items()}
        )

    return tf.function(lambda: strategy.run(on_replica), autograph=False)()


def test_every_replica_gets_the_rows_of_all_exactly(of_two_workers):
    values = {
        "feature": np.array([[0.1, -3e38], [1e-30, 0.0], [7.0, 2.0], [5.0, 0.3]], np.float32),
        "content": np.array([2**62, 1, -5, 0], np.int64),
        "position": np.array([3, 2, 1, -1], np.int32),
        "mask": np.array([True, False, True, False]),
        "thumbnail": np.array([255, 0, 1, 128], np.uint8),
    }
    strategy = replicas.strategy(2)
    found = gathered(strategy, values)
    for name, expected in values.items():
        for of_replica in strategy.experimental_local_results(found[name]):
            assert of_replica.dtype == expected.dtype
            np.testing.assert_array_equal(of_replica, expected)
    rows = multi_worker.local_rows(strategy, found)
    assert {name: len(x) for name, x in rows.items()} == dict.fromkeys(values, 4)


def test_a_single_worker_keeps_the_rows_of_each_replica():
    strategy = replicas.strategy(2)
    found = gathered(strategy, {"x": np.arange(4)})
    local = strategy.experimental_local_results(found["x"])
    assert [x.numpy().tolist() for x in local] == [[0, 1], [2, 3]]
    np.testing.assert_array_equal(multi_worker.local_rows(strategy, found)["x"], range(4))


def test_the_replicas_of_a_worker_split_its_batch(of_two_workers):
    strategy = replicas.strategy(4)  # The replicas 2 and 3 stand for those of the other worker.
    batches = tf.data.Dataset.from_tensor_slices({"x": np.arange(8)}).batch(4)
    found = [
        [x.numpy().tolist() for x in strategy.experimental_local_results(batch["x"])]
        for batch in multi_worker.distributed(batches, strategy)
    ]
    first, second = [[0, 1], [2, 3]], [[4, 5], [6, 7]]
    assert found == [first + first, second + second]
    assert multi_worker.replicas_of_worker(strategy) == 2


def test_a_strategy_of_one_process_is_one_worker():
    for count in (1, 2):
        strategy = replicas.strategy(count)
        assert multi_worker.num_workers(strategy) == 1
        assert multi_worker.worker_index(strategy) == 0
        assert multi_worker.replicas_of_worker(strategy) == count
        assert multi_worker.num_input_hosts(strategy) == 1
