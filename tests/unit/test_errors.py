"""The error tree: drawn in the docstring, picklable, and sentences."""

import pickle
import re

import pytest

import cafetal.errors as errors
from cafetal.errors import CafetalError, nearest, rebuild


def tree():
    return [CafetalError, *CafetalError.__subclasses__()]


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
    assert nearest("x", ["abc"]) == "Known: abc"
    assert nearest("x", []) == "None are known"


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

    monkeypatch.setattr(errors, "Loud", Loud, raising=False)
    assert isinstance(rebuild("cafetal.errors.Loud", "text"), Loud)
