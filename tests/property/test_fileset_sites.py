"""Site tables made from filesets: whatever the fileset, each table can be read and finds a replica of every file."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from cafetal.config import SiteTable, load_sites
from cafetal.fileset import load
from cafetal.fileset_sites import PLACEHOLDER, THIS_MACHINE, choose_sites, draft_sites, this_machine, write_draft
from cafetal.replicas import FilesetCatalog
from cafetal.strict import load_yaml

LABELS = st.sampled_from(["T2_DE_DESY", "T1_X:Disk", "on", "1", "null", "ümläut", "-", "a b", "a_b", "a:b"])
PREFIXES = st.sampled_from(["root://one/", "root://one:1094//eos", "https://two/x", "davs://3/ä b", "/pnfs/q", "data"])
LFNS = st.sampled_from([f"/store/{name}.root" for name in "abcdef"])


@st.composite
def copies(draw, lfn):
    """An entry of a file: named replicas with or without PFNs, places of Rucio's, or nothing."""
    labels = draw(st.lists(LABELS, unique=True, max_size=4))
    pfns = {label: draw(st.none() | PREFIXES.map(lambda prefix: f"{prefix}{lfn}")) for label in labels}
    split = draw(st.integers(0, len(labels)))
    return {
        "object_path": "Events",
        "replicas": dict(itertools.islice(pfns.items(), split)),
        "elsewhere": dict(itertools.islice(pfns.items(), split, None)),
    }


@st.composite
def filesets(draw):
    named = {lfn: draw(copies(lfn)) for lfn in draw(st.lists(LFNS, unique=True, max_size=6))}
    hosts = draw(st.lists(st.sampled_from(["root://h1//x/a.root", "root://h1//y/b.root", "https://h2:8443/z/c.root"])))
    files = {**named, **dict.fromkeys(hosts, "Events")}
    return load({"dataset": {"files": files or {"root://h1//x/a.root": "Events"}}})


@given(filesets(), st.integers(1, 64))
def test_a_draft_finds_every_file(fileset, workers):
    text = write_draft(fileset, "mine.json", workers)
    table = load_sites(load_yaml(text))
    catalog = FilesetCatalog(table, fileset)
    for file in fileset.files():
        assert catalog.replicas(file.lfn)
    assert sum(site.workers for site in table.sites.values()) <= max(workers, len(table.sites))
    whole = load_sites(load_yaml(text.replace("\n  # ", "\n  ").replace("\n  These hold", "\n  # These hold")))
    assert len(whole.sites) == len(draft_sites(fileset))
    named = {draft.name: draft.prefix for draft in draft_sites(fileset)}
    assert {name for name, prefix in named.items() if prefix is None} == {
        name for name, site in whole.sites.items() if str(site.pfn).endswith(PLACEHOLDER)
    }


@given(filesets())
def test_few_places_hold_all_files(fileset):
    drafts = draft_sites(fileset)
    chosen = choose_sites(drafts)
    lfns = {file.lfn for file in fileset.files()}
    assert set().union(*(draft.lfns for draft in chosen)) == lfns
    for index, draft in enumerate(chosen):  # each was worth it when it was chosen
        assert draft.required or draft.lfns.difference(*(earlier.lfns for earlier in chosen[:index]))
    assert {draft.label for draft in drafts if draft.required} <= {draft.label for draft in chosen}


@given(filesets())
def test_this_machine_reads_what_the_fileset_names(fileset):
    content = fileset.to_json()
    for lfn, file in content["dataset"]["files"].items():  # without a PFN the LFN is a path, which must exist here
        for key in ("replicas", "elsewhere"):
            places = file.get(key, {})
            places = dict.fromkeys(places) if isinstance(places, list) else places
            file[key] = {name: pfn or f"root://any/{lfn}" for name, pfn in places.items()}
            file[key] = {name: pfn for name, pfn in file[key].items() if "://" in pfn}
        if not (file["replicas"] or file["elsewhere"]) and "://" not in lfn:
            file["replicas"] = {"x": f"root://any/{lfn}"}
    fileset = load(content)
    table = this_machine(fileset)
    assert isinstance(table, SiteTable)
    catalog = FilesetCatalog(table, fileset)
    for file in fileset.files():
        pfns = [pfn for pfn in (*file.replicas.values(), *file.elsewhere.values()) if pfn]
        assert catalog.replicas(file.lfn) == {THIS_MACHINE: pfns[0] if pfns else file.lfn}
