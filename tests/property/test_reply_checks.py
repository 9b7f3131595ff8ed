"""What sites send is data, and may be any: it is what was asked for, or the site is to blame; nothing else happens."""

import contextlib
import json
from concurrent.futures import Future

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cafetal.engine.tasks import reply_checks
from cafetal.engine.tasks.losses import lost_task, settle_task
from cafetal.errors import CafetalError, RemoteCause, SiteError
from cafetal.federation.globus_compute.endpoint import GlobusComputeEndpoint
from cafetal.federation.globus_compute.submitter import Parcel
from cafetal.worker.chunkset import ChunkSet

ASKED = ChunkSet.of(range(4))
FAILURE = lost_task(OSError("x"), "cern", "2-3")
PARTIAL = {"name": "cern.1.map-0", "size": 10, "digest": "0" * 16, "chunks": "0-1"}
GOOD = {
    "partial": PARTIAL,
    "failures": [FAILURE],
    "events": 2,
    "seconds": 0.1,
    "waited": 0.05,
    "read": {"/f": None},
    "copies": {"/f": 1},
    "host": "h",
    "aside": [],
    "left": "",
    "modules": {},
    "log": "",
    "cached": [PARTIAL],
    "software": "0" * 16,
}
RANGE = {"reference": {**PARTIAL, "name": "old"}, "software": "0" * 16, "chunks": "0-1", "position": 0}
(INPUT := Future()).set_result({"partial": PARTIAL})
CHECKS = [
    reply_checks.of_map("cern", ASKED),
    reply_checks.of_reduce("cern", [INPUT]),
    reply_checks.of_survey("cern"),
    reply_checks.of_reuse("cern", [RANGE]),
    reply_checks.of_peek("cern", ASKED),
    reply_checks.of_fetch("cern"),
    reply_checks.of_leftovers("cern"),
    reply_checks.of_logins("cern"),
    reply_checks.of_install("cern"),
    reply_checks.of_inspect("cern", 2),
]

leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=8)
plain = st.recursive(
    leaves | st.sampled_from([PARTIAL, FAILURE, GOOD, "0-1", "3-1", "0-99999999999999", [PARTIAL]]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*GOOD, "lost", "failure"]), inner),
    max_leaves=10,
)


@pytest.mark.parametrize("number", range(len(CHECKS)))
@given(answer=plain)
def test_any_answer_is_good_or_the_site_is_to_blame(number, answer):
    check = CHECKS[number]
    with contextlib.suppress(SiteError):
        assert check(answer) is answer


@given(st.sampled_from(sorted(GOOD)), plain)
def test_a_good_answer_with_one_part_exchanged(key, value):
    """It is taken only if it still speaks of every chunk once."""
    try:
        told = CHECKS[0]({**GOOD, key: value})
    except SiteError:
        return
    chunks = [] if told["partial"] is None else list(ChunkSet.parse(told["partial"]["chunks"]))
    chunks += [i for failure in told["failures"] for i in ChunkSet.parse(failure["chunks"])]
    assert sorted(chunks) == list(ASKED)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"partial": {**PARTIAL, "chunks": "0-2"}}, "Malformed reply"),  # 2 is in it, and has failed
        ({"partial": {**PARTIAL, "chunks": "0"}}, "it covers the chunks 0,2-3, but 0-3 were requested"),
        ({"partial": {**PARTIAL, "name": "../../etc/passwd"}}, "partial.name"),
        ({"partial": {**PARTIAL, "more": 1}}, "partial.more"),
        ({"failures": [{**FAILURE, "kind": "meteor"}]}, "failures.0.kind"),
        ({"seconds": float("nan")}, "seconds"),
    ],
)
def test_what_is_refused_is_said(change, sentence):
    assert CHECKS[0](GOOD) is GOOD
    with pytest.raises(SiteError, match=r"cern has|Malformed reply from cern") as caught:
        CHECKS[0]({**GOOD, **change})
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        {"partial": {**PARTIAL, "chunks": "0-2"}, "lost": [], "seconds": 0.1},
        {"partial": None, "lost": [{**FAILURE, "kind": "partial"}], "seconds": 0.1},
        {"partial": None, "lost": [], "failure": None},
    ],
)
def test_a_reduce_speaks_of_what_it_was_given(answer):
    check = reply_checks.of_reduce("cern", [INPUT])
    good = {"partial": PARTIAL, "lost": [], "seconds": 0.1}
    assert check(good) is good
    with pytest.raises(SiteError, match=r"cern has|Malformed reply from cern"):
        check(answer)


def test_a_peek_shows_what_was_asked_for():
    check = reply_checks.of_peek("cern", ChunkSet.of([0, 1]))
    assert check(PARTIAL) is PARTIAL
    assert check(None) is None
    with pytest.raises(SiteError, match="it holds the chunks 0-2, but 0-1 were requested"):
        check({**PARTIAL, "chunks": "0-2"})


@pytest.mark.parametrize(
    "changes",
    [{"partial": {**PARTIAL, "chunks": "0-2"}}, {"lost": ["another"]}, {"lost": None}, {"seconds": -1}],
)
def test_reused_results_are_those_that_were_asked_for(changes):
    check = reply_checks.of_reuse("cern", [RANGE])
    good = {"partial": PARTIAL, "lost": ["old"], "seconds": 0.1}
    assert check(good) is good
    with pytest.raises(SiteError, match="Malformed reply from cern"):
        check({**good, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"partial": {**PARTIAL, "name": "../passwd"}},
        {"partial": {**PARTIAL, "size": -1}},
        {"partial": {**PARTIAL, "digest": "0" * 15}},
        {"partial": {**PARTIAL, "chunks": ""}},
        {"partial": {**PARTIAL, "more": 1}},
        {"failures": [{**FAILURE, "kind": "other"}]},
        {"failures": [{**FAILURE, "types": []}]},
        {"failures": [{key: value for key, value in FAILURE.items() if key != "traceback"}]},
        {"left": "3-1"},
        {"events": -1},
        {"events": "2"},
        {"seconds": float("inf")},
        {"seconds": float("nan")},
        {"read": {"/f": -1}},
        {"aside": ["x"] * 4},
        {"aside": ["x" * 301]},
        {"modules": {f"m{i}": "" for i in range(21)}},
        {"log": "x" * 100_001},
        {"cached": [{**PARTIAL, "name": "../passwd"}]},
        {"cached": [{**PARTIAL, "chunks": "7"}]},
        {"software": "1"},
        {"unknown": 1},
    ],
)
def test_limits_of_the_protocol_hold(changes):
    assert CHECKS[0](GOOD) is GOOD
    with pytest.raises(SiteError, match="Malformed reply from cern"):
        CHECKS[0]({**GOOD, **changes})


def test_every_key_of_a_reply_is_demanded():
    for key in GOOD:
        with pytest.raises(SiteError, match=f"Malformed reply from cern .{key}: Field required"):
            CHECKS[0]({name: value for name, value in GOOD.items() if name != key})


def test_a_garbled_answer_is_a_lost_task():
    future = Future()
    settled = settle_task(future, lambda error: lost_task(error, "cern"), check=CHECKS[0])
    future.set_result({"partial": 5})
    assert settled.result(timeout=1)["kind"] == "site"


words = st.sampled_from(
    ["result", "error", "pickle", "not_plain", "too_large", "measures", "type", "message", "started"]
)
trees = st.recursive(
    leaves.filter(lambda value: not isinstance(value, bytes)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | st.text(max_size=3), inner, max_size=4),
    max_leaves=10,
)


@given(st.text() | trees.map(json.dumps) | st.binary() | leaves)
@example(json.dumps({"error": {"type": "os.system", "message": "true"}}))
@example(json.dumps({"pickle": "gASVBQAAAAAAAACMAXiULg=="}))
@example("[" * 100_000)
@example(json.dumps({"measures": {"started": 1e400, "finished": "x"}, "result": 1}))
def test_hostile_text_from_the_service_is_an_error_and_nothing_else(text):
    """From what the SDK's future holds to a value of ours, for a site that is not trusted with pickles."""
    endpoint = GlobusComputeEndpoint("cern", "00000000-0000-0000-0000-000000000000")
    done, measures = Future(), {}
    done.set_result(text)
    endpoint._open[parcel := Parcel("", {})] = (answered := Future()), measures.update
    endpoint._answered(parcel, done)
    error = answered.exception(timeout=1)
    # What a site reports as its error is made anew here: a class of ours, or one that Python has.
    assert error is None or isinstance(error, (CafetalError, RemoteCause)) or type(error).__module__ == "builtins"
    assert all(type(value) in (int, float) for value in measures.values())
