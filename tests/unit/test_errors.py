"""The error tree: drawn in the docstring, picklable, and sentences."""

import pickle
import re

import pytest
import uproot
from coffea.processor.executor import UprootMissTreeError

import cafetal.errors as errors
import cafetal.remote_errors as rebuilding
from cafetal.errors import CafetalError, ProcessorError, UnreadableFile, nearest
from cafetal.remote_errors import also, rebuild


def tree(kind=CafetalError):
    return [
        kind,
        *(each for child in kind.__subclasses__() if child.__module__ == errors.__name__ for each in tree(child)),
    ]


@pytest.mark.parametrize("kind", tree(), ids=lambda kind: kind.__name__)
def test_survives_pickling(kind):
    error = pickle.loads(pickle.dumps(kind("It broke at desy.", site="desy", entries=(0, 5))))
    assert type(error) is kind
    assert str(error) == "It broke at desy."
    assert error.details == {"site": "desy", "entries": (0, 5)}


def test_docstring_draws_the_tree():
    drawn = dict(re.findall(r"── (\w+)\s+\((\w+)\)", errors.__doc__))
    assert drawn == {kind.__name__: kind.__bases__[1].__name__ for kind in CafetalError.__subclasses__()}


def test_nearest():
    assert nearest("scrach", ["scratch", "pfn"]) == "did you mean 'scratch'? Known: pfn, scratch"
    assert nearest("x", ["abc"]) == "known: abc"
    assert nearest("x", []) == "none are known"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("builtins.FileNotFoundError", FileNotFoundError),
        ("builtins.KeyError", KeyError),
        ("uproot.exceptions.KeyInFileError", KeyError),
        ("cafetal.errors.EventsLost", errors.EventsLost),
        ("no.such.module.Error", errors.RemoteCause),
        ("builtins.print", errors.RemoteCause),
        ("builtins.SystemExit", errors.RemoteCause),
    ],
)
def test_rebuild_from_text_alone(name, expected):
    error = rebuild(name, "it was so")
    assert isinstance(error, expected)
    assert "it was so" in str(error)


@pytest.mark.parametrize("name", ["builtins.ExceptionGroup", "pydantic_core._pydantic_core.ValidationError"])
def test_classes_of_which_nothing_can_be_made(name):
    import pydantic  # noqa: F401  # its class must be there to be found

    assert "it was so" in str(rebuild(name, "it was so"))


def test_rebuild_imports_nothing_and_calls_no_constructor(monkeypatch):
    class Loud(Exception):
        def __init__(self, a, b):
            raise AssertionError("the constructor was called")

    monkeypatch.setattr(rebuilding, "Loud", Loud, raising=False)
    assert isinstance(rebuild("cafetal.remote_errors.Loud", "text"), Loud)


class Wanting(OSError):
    def __init__(self, one, two):
        super().__init__(one, two)


@pytest.mark.parametrize("ours", [UnreadableFile, ProcessorError])
@pytest.mark.parametrize(
    "other", [FileNotFoundError, KeyError, ValueError, uproot.exceptions.KeyInFileError, UprootMissTreeError, Wanting]
)
def test_an_error_that_is_found_by_another_class_too(ours, other):
    error = ours("It broke at desy.", site="desy")
    error.__cause__ = ValueError("this")
    made = also(error, other)
    assert isinstance(made, ours)
    assert isinstance(made, other) or (ours is ProcessorError and issubclass(other, OSError))  # their layouts differ
    assert made.__cause__ is error.__cause__
    for again in (made, pickle.loads(pickle.dumps(made))):
        assert type(again) is type(made)
        assert (str(again), again.details) == ("It broke at desy.", {"site": "desy"})
    assert type(also(ours("x"), other)) is type(made)


@pytest.mark.parametrize("other", [UnicodeDecodeError, ExceptionGroup, ImportError, SyntaxError, StopIteration])
def test_classes_that_exclude_one_another(other):
    assert isinstance(also(UnreadableFile("x"), other), UnreadableFile)


@pytest.mark.parametrize("name", ["builtins.FileNotFoundError", "uproot.exceptions.KeyInFileError", "no.such.Error"])
def test_what_is_rebuilt_survives_pickling(name):
    error = pickle.loads(pickle.dumps(rebuild(name, "it was so", {"errno": 2, "code": 7})))
    assert "it was so" in str(error)
    assert error.code == 7
    assert type(error).__name__ in (name.rpartition(".")[2], "RemoteCause")


class InTheWay(Exception):
    """One with a property where an error of ours has its message, and that wants no children."""

    @property
    def message(self):
        return "its own"


class Childless(Exception):
    def __init_subclass__(cls):
        raise RuntimeError("no children")


@pytest.mark.parametrize("other", [InTheWay, Childless])
def test_a_class_that_cannot_be_joined_is_left_out(other):
    made = also(UnreadableFile("x", site="desy"), other)
    assert (type(made), str(made), made.details) == (UnreadableFile, "x", {"site": "desy"})
