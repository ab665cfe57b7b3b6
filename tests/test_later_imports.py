"""What training does not need is imported while it trains; what is missing ends it at once."""

import subprocess
import sys
import threading

import pytest

from simclr_tf import errors, later_imports

# A process of its own: here, other tests have imported everything.
_TRAINING_ALONE = """
import sys
import simclr_tf
from simclr_tf.commands import several_workers, train
print(sorted({"matplotlib", "scipy.stats", "sklearn"} & sys.modules.keys()))
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module of this name and code, and returns the name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name, code):
        (tmp_path / f"{name}.py").write_text(code)
        return name

    yield write
    for name in [path.stem for path in tmp_path.glob("*.py")]:
        sys.modules.pop(name, None)


def test_the_first_call_imports_in_another_thread(module):
    names = [
        module(name, "import threading\nthread = threading.current_thread()")
        for name in ("later_one", "later_two")
    ]
    imports = later_imports.LaterImports(names)
    train = imports.beside(lambda count: count + 1)
    assert not sys.modules.keys() & set(names)
    assert train(1) == 2
    imports.finish()
    threads = {sys.modules[name].thread for name in names}
    assert len(threads) == 1
    assert threads != {threading.current_thread()}


def test_modules_are_imported_once(module, tmp_path):
    count = tmp_path / "count"
    name = module("later_counted", f"open({str(count)!r}, 'a').write('x')")
    imports = later_imports.LaterImports([name])
    train = imports.beside(lambda count: count)
    for step in range(3):
        train(step)
    imports.finish()
    assert count.read_text() == "x"


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("later_missing", None, r"\(ModuleNotFoundError: No module named 'later_missing'\)"),
        (
            "later_broken",
            "raise AttributeError('no __array__')",
            r"\(AttributeError: no __array__\)",
        ),
    ],
)
def test_a_module_that_cannot_be_imported_ends_training(module, name, code, reason):
    if code is not None:
        module(name, code)
    imports = later_imports.LaterImports([name])
    steps = []
    train = imports.beside(steps.append)
    with pytest.raises(
        errors.UserError, match=rf"^{name} cannot be imported {reason}, which .*pip"
    ):
        for step in range(10**9):
            train(step)
    assert steps
    with pytest.raises(errors.UserError, match="cannot be imported"):
        imports.finish()


def test_evaluation_alone_is_refused_before_it_begins(module):
    name = module("later_in_vain", "raise ImportError('no such symbol')")
    with pytest.raises(
        errors.UserError, match=rf"^{name} cannot be imported \(ImportError: no such"
    ):
        later_imports.import_now([name])


def test_nothing_is_imported_without_a_step(module):
    name = module("later_unused", "")
    later_imports.LaterImports([name]).finish()
    assert name not in sys.modules


def test_what_is_imported_later_exists():
    for name in (*later_imports.OF_EVALUATION, *later_imports.OF_REPORT):
        assert __import__(name)


def test_training_alone_imports_nothing_that_takes_a_second():
    done = subprocess.run(
        [sys.executable, "-c", _TRAINING_ALONE], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
