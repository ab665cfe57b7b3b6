"""Where the program waits for the other workers; another worker is imitated here."""

import contextlib

import pytest
import tiny_runs

from simclr_tf.commands import several_workers

pytestmark = pytest.mark.usefixtures("no_export_in_file")


# Seconds of a step of the other worker, so that all run one step at a time.
_SLOW = 10.0


class Pair:
    """The connection of two workers, of which the other one answers the same, but is slower.

    Attributes:
        exchanged: what was exchanged, and the steps of the checkpoints at that moment.
    """

    count = 2

    def __init__(self, folder, stops_after):
        self.exchanged = []
        self._folder, self._stops_after = folder, stops_after

    def exchange(self, value):
        steps = [path.stem for path in sorted(self._folder.glob("ckpt-*.index"))]
        self.exchanged.append((value, steps))
        if isinstance(value, list) and isinstance(value[0], bool):
            calls = sum(isinstance(earlier, list) for earlier, _ in self.exchanged)
            return [value, [calls == self._stops_after, _SLOW]]
        return [value, value]


@pytest.fixture
def run(monkeypatch, photos, tmp_path):
    """A function that runs the program as one of two workers; returns its code and the pair."""

    def start(mode, *, stops_after=0, **settings):
        pair = Pair(tmp_path, stops_after)

        @contextlib.contextmanager
        def joined(config, environment):
            yield several_workers.Joined(config, None, pair)

        monkeypatch.setattr(several_workers, "joined", joined)
        return tiny_runs.main(mode, tmp_path, photos, **tiny_runs.NO_COLOR, **settings), pair

    return start


def test_images_and_weights_are_compared_before_training_and_before_evaluation(run):
    code, pair = run("train_then_eval", linear_eval=False)
    assert code == 0
    kinds = [
        ("images" if "images of 'train'" in value else "weights", value.get("step"))
        for value, _ in pair.exchanged
        if isinstance(value, dict)
    ]
    assert kinds == [("images", None), ("weights", 0), ("images", None), ("weights", 4)]
    hashes = [
        value.get("hash of the weights") for value, _ in pair.exchanged if isinstance(value, dict)
    ]
    assert hashes[1] != hashes[3]
    pace = [value for value, _ in pair.exchanged if isinstance(value, list)]
    assert len(pace) == 4  # One exchange for each call of the compiled loop.
    assert all(stops is False and seconds > 0 for stops, seconds in pace)


def test_a_signal_to_another_worker_ends_training_with_a_checkpoint_for_which_all_wait(run, capsys):
    rarely = {"checkpoint_steps": 100, "train_summary_steps": 100}
    code, pair = run("train", stops_after=5, train_steps=6, **rarely)
    assert code == 143
    printed = capsys.readouterr().err
    assert "Ended by a signal to another worker after a checkpoint was saved." in printed
    assert pair.exchanged[-1] == ("trained", ["ckpt-5"])
