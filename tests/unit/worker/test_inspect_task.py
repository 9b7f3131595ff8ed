"""Entries of files, counted."""

import numpy as np
import pytest
import uproot

from cafetal.worker import inspect_task
from cafetal.worker.code import shipped_code, user_modules
from cafetal.worker.inputs.file_names import site_names


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "data" / "a.root"
    path.parent.mkdir()
    with uproot.recreate(path) as output:
        output.mktree("Events", {"x": "f8"}).extend({"x": np.arange(100.0)})
    return path


@pytest.fixture(autouse=True)
def forget_modules():
    yield
    user_modules._active, user_modules._names = None, ()
    shipped_code._load.cache_clear()


READING = {"timeout": 5, "preload": "remote"}


def test_inspect(tmp_path, file):
    def ask(**changes):
        names = site_names(f"{file.parent}/", {})
        question = {"lfn": "a.root", "treename": "Events", "format": "root", "options": {}, "known": None}
        question |= {"others": [], **changes}
        (answer,) = inspect_task.inspect(
            tmp_path, site="desy", files=[question], names=names, function=None, archive="", reading=READING
        )
        return answer

    answer = ask()
    assert (answer["num_entries"], answer["size"]) == (100, file.stat().st_size)
    assert len(answer["uuid"]) == 32
    assert ask(lfn="nowhere.root", others=[str(file)]) == answer
    believed = {**answer, "num_entries": 5}
    assert ask(known=believed) == believed
    assert ask(known={**believed, "size": 1}) == answer
    assert ask(known={**believed, "mtime_ns": 1}) == answer
    assert ask(treename="Evnts")["failure"]["types"] == [
        "coffea.processor.executor.UprootMissTreeError",
        "uproot.exceptions.KeyInFileError",
    ]
    assert ask(lfn="none.root")["failure"]["kind"] == "data"
