"""What is known of files: kept, replaced, and never trusted more than the file."""

import sqlite3

import pytest

from cafetal.caches.file_entries import FileCache


def test_cache_keeps_and_replaces(tmp_path):
    cache = FileCache(tmp_path)
    key = ("desy", "/a.root", "Events")
    assert cache.get([key]) == {}
    cache.put({key: {"num_entries": 5}})
    cache.put({key: {"num_entries": 6}, ("cern", "/a.root", "Events"): {"num_entries": 7}})
    assert FileCache(tmp_path).get([key, ("x", "y", "z")]) == {key: {"num_entries": 6}}


def test_a_broken_cache_costs_time_only(tmp_path):
    (tmp_path / "files.sqlite").write_text("this is no database" * 100)
    cache = FileCache(tmp_path)
    cache.put({("a", "b", "c"): {}})
    assert cache.get([("a", "b", "c")]) == {}
    with pytest.raises(sqlite3.DatabaseError), cache._open():
        pass
