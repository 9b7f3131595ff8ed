"""What is written is read back the same: site tables, filesets, names."""

import dataclasses
import re

import yaml
from coffea.processor.executor import WorkItem
from hypothesis import given
from hypothesis import strategies as st

from cafetal.config import load_sites
from cafetal.fileset import DataFile, Dataset, Fileset, load
from cafetal.fileset_keys import RESERVED
from cafetal.worker import work_items
from cafetal.worker.inputs.file_names import prefixes, to_pfn

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
paths = st.from_regex(r"/?[A-Za-z0-9_]{1,8}(/[A-Za-z0-9_.]{1,8}){0,3}", fullmatch=True)
hosts = st.sampled_from(["root://host:1094/", "https://host/data", "/data/", "/data", "file:///x/"])
sites = st.fixed_dictionaries(
    {"pfn": st.one_of(hosts, st.dictionaries(st.just("^/store/(.*)"), hosts.map(lambda h: h + "/$1"), min_size=1))},
    optional={
        "endpoint": st.sampled_from(
            ["local", {"kind": "local", "prepend": "nice"}, {"kind": "parsl", "factory": "m:f", "options": {"a": 1}}]
        ),
        "workers": st.integers(1, 100),
        "rses": st.lists(names, max_size=2),
    },
).map(lambda site: {"scratch": "/scratch", **site})


@given(st.dictionaries(names, sites, min_size=1, max_size=4))
def test_site_table(content):
    content = {"sites": content, "policy": "random", "placement": {"d": list(content)}}
    table = load_sites(content)
    again = load_sites(yaml.safe_load(yaml.safe_dump(table.model_dump(mode="json"), sort_keys=False)))
    assert again == table
    assert list(again.sites) == list(content["sites"])


@given(hosts, paths)
def test_a_pfn_lies_under_its_prefix(prefix, lfn):
    pfn = to_pfn(lfn, prefix)
    (beginning,) = prefixes(prefix)
    assert pfn.startswith(beginning)
    assert pfn.endswith(lfn)
    assert pfn.startswith(prefix)


@given(paths)
def test_templates(lfn):
    rules = {"^/store/([^/]+)/(.*)": "root://eos/$2?user=$1", "^/?(.*)": r"https://x\y/$1"}
    pfn = to_pfn(lfn, rules)
    found = re.search("^/store/([^/]+)/(.*)", lfn)
    assert pfn == (f"root://eos/{found[2]}?user={found[1]}" if found else rf"https://x\y/{lfn.removeprefix('/')}")
    assert to_pfn(lfn, {"^nothing$": "x"}) is None


files = st.builds(
    DataFile,
    lfn=paths,
    object_path=st.one_of(st.none(), names),
    replicas=st.one_of(
        st.dictionaries(names, st.none(), max_size=3), st.dictionaries(names, paths, min_size=1, max_size=3)
    ),
    num_entries=st.one_of(st.none(), st.integers(0, 10**12)),
    uuid=st.one_of(st.none(), st.uuids().map(lambda u: u.hex)),
    size=st.one_of(st.none(), st.integers(0, 10**12)),
    adler32=st.one_of(st.none(), st.from_regex(r"[0-9a-f]{8}", fullmatch=True)),
)


free = names.filter(lambda name: name not in RESERVED)


@given(st.lists(files, min_size=1, unique_by=lambda file: file.lfn), st.dictionaries(free, st.integers()))
def test_fileset(some, metadata):
    fileset = Fileset([Dataset("d", tuple(some), metadata)])
    assert load(fileset.to_json())["d"] == fileset["d"]


items = st.builds(
    WorkItem,
    names,
    paths,
    names,
    st.integers(0, 1 << 40),
    st.integers(0, 1 << 40),
    st.binary(max_size=16),
    st.none() | st.dictionaries(names, st.integers() | st.text(max_size=5), max_size=3),
    st.none() | st.frozensets(names, max_size=3),
)


@given(st.lists(st.tuples(st.integers(0, 1 << 40), items, st.tuples(st.integers(), st.integers())), max_size=5))
def test_work_items(todo):
    again = work_items.unpack(work_items.pack(todo))
    assert again == todo
    for (_, was, _), (_, now, _) in zip(todo, again, strict=True):
        assert type(now) is WorkItem
        assert dataclasses.asdict(now) == dataclasses.asdict(was)  # some fields do not count when items are compared
        assert hash(now) == hash(was)
