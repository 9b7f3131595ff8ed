"""Names of files, at the site where a task runs."""

import pytest

from cafetal.worker.code import shipped_code, user_modules
from cafetal.worker.inputs.file_names import resolve, site_names


@pytest.fixture(autouse=True)
def forget_modules():
    yield
    user_modules._active, user_modules._names = None, ()
    shipped_code._load.cache_clear()


def test_names_are_resolved_where_the_task_runs(monkeypatch):
    monkeypatch.setenv("SITE_DATA", "/pnfs")
    monkeypatch.setenv("HOME", "/home/me")
    names = site_names(
        "$SITE_DATA/cms", {"/store/a": "$SITE_DATA/cms/store/a", "/store/b": "~/b", "/store/c": "root://x//c"}
    )
    assert names["explicit"] == {"/store/b": "~/b", "/store/c": "root://x//c"}
    assert [resolve(f"/store/{n}", names) for n in "abcd"] == [
        "/pnfs/cms/store/a",
        "/home/me/b",
        "root://x//c",
        "/pnfs/cms/store/d",
    ]
    with pytest.raises(LookupError, match="No rule of this site fits /x"):
        resolve("/x", {"rules": {"^/store": "y"}, "explicit": {}})
