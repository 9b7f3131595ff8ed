"""Failures as data."""

import pytest
import uproot

from cafetal.worker.code import shipped_code, user_modules
from cafetal.worker.failures import StaleFile, chain, describe, kind_of
from cafetal.worker.inputs.open_files import OpenFiles


@pytest.fixture(autouse=True)
def forget_modules():
    yield
    user_modules._active, user_modules._names = None, ()
    shipped_code._load.cache_clear()


READING = {"timeout": 5, "preload": "remote"}


class Wordless(Exception):
    def __str__(self):
        raise AttributeError("lost in pickling")


def test_exceptions_that_cannot_speak():
    failure = describe(Wordless(), site="desy")
    assert failure["messages"] == ["(its message cannot be shown)"]
    assert failure["site"] == "desy"


def test_kinds_of_errors(tmp_path):
    def caught(function):
        try:
            function()
        except Exception as error:
            return error

    assert kind_of(caught(lambda: OpenFiles(READING).open({str(tmp_path / "none.root"): None}))) == "data"
    assert kind_of(caught(lambda: uproot.open(tmp_path / "corrections.root"))) == "processor"  # a file of the user's
    assert kind_of(caught(lambda: (tmp_path / "corrections.json").read_text())) == "processor"
    assert kind_of(Exception("Failed to open file: x")) == "data"
    assert kind_of(StaleFile("x")) == "stale"
    error = caught(lambda: exec(compile("1/0", str(tmp_path / "uproot" / "mine.py"), "exec")))
    assert kind_of(error) == "processor"  # a user's folder that bears the name of a library
    assert len(chain(error)) == 1
