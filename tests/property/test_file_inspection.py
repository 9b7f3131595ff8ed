"""Files are counted once, wherever that can be done, in whatever order sites come and answers arrive."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from cafetal.caches.file_entries import FileCache
from cafetal.config import load_sites
from cafetal.engine import file_inspection
from cafetal.engine.file_inspection import Inspection, Question, all_lost
from cafetal.engine.tasks.losses import Lost, lost_task
from cafetal.scheduling.policies import Balanced

SITES = ("a", "b", "c")
TABLE = load_sites({"sites": {name: {"pfn": f"/{name}/", "scratch": "/s", "workers": 2} for name in SITES}})
RECORD = {"num_entries": 5, "uuid": "0" * 32, "size": None, "mtime_ns": None}


class NoCache(FileCache):
    """Keeps nothing."""

    def __init__(self):
        self.entered = []

    def get(self, keys):
        return {}

    def put(self, records):
        self.entered += records


def begin(questions):
    """An inspection, what it has asked of sites, the tasks it has sent, and its cache."""
    asked, sent, cache = [], [], NoCache()

    class Sent:
        def __init__(self, site, count):
            self.site, self.count = site, count

        def add_done_callback(self, callback):
            self.callback = callback

    def call(request):
        site, arguments, count = request["site"], request, len(request["files"])
        assert len(arguments["files"]) == count <= file_inspection._FILES_A_TASK
        sent.append(Sent(site, count))
        return sent[-1]

    told = []
    made = Inspection(
        questions, TABLE, Balanced(), cache, ask=asked.append, call=call, tell=lambda *each: told.append(each)
    )

    def answer(task, records):
        class Done:
            def result(self):
                return records

        task.callback(Done())
        return told.pop()

    return made, asked, sent, cache, answer


outcomes = st.sampled_from(["good", "good", "good", "data", "worker", "away"])


@given(st.lists(st.sets(st.sampled_from(SITES), min_size=1), min_size=1, max_size=120), st.data())
def test_each_file_is_answered_once(holders, data):
    questions = {
        f"/{i}": Question(f"/{i}", "Events", {site: f"/{site}/{i}" for site in sorted(sites)})
        for i, sites in enumerate(holders)
    }
    made, asked, sent, cache, answer = begin(questions.values())
    made.begin()
    waiting = set(asked.pop())
    assert waiting == {site for sites in holders for site in sites}
    told, there, lost = {}, set(), set()
    while made.left:
        for site in there:  # all that may be under way is
            assert sum(task.site == site for task in sent) <= file_inspection._AHEAD * 2
        place = data.draw(st.integers(0, len(waiting) + len(sent) - 1))
        if place < len(waiting):
            site = sorted(waiting)[place]
            waiting.remove(site)
            if data.draw(st.integers(0, 3)):
                there.add(site)
                made.site_answered(site)
                continue
            lost.add(site)
            there.discard(site)
            new = made.site_lost(site, lost_task(Lost("it is gone"), site))
        else:
            task = sent.pop(place - len(waiting))
            kind = data.draw(outcomes)
            records = [RECORD] * task.count
            if kind == "data":
                records[0] = {"failure": {**lost_task(Lost("bad"), task.site), "kind": "data"}}
            elif kind != "good":
                records = [
                    {"failure": {**each["failure"], "kind": kind}}
                    for each in all_lost(task.site, task.count, Lost("x"))
                ]
            new = made.take(*answer(task, records))
            for each in asked:
                assert each == [task.site]
                there.discard(task.site)
                waiting.update(each)
            asked.clear()
        assert not new.keys() & told.keys()
        told |= new
    assert {lfn for lfn, _ in told} == questions.keys()
    for (lfn, _), found in told.items():
        replicas, tried = set(questions[lfn].replicas), {failure["site"] for failure in found.failures}
        assert tried <= replicas
        assert found.record is not None or tried == replicas  # given up only when all were tried
        assert (
            max(Counter(failure["site"] for failure in found.failures).values(), default=0) <= file_inspection._LOSSES
        )
    counted = Counter(pfn.rpartition("/")[2] for _, pfn, _ in cache.entered)
    assert counted == {lfn[1:]: 1 for (lfn, _), found in told.items() if found.record is not None}


def test_a_site_that_is_late_is_waited_for_only_where_no_other_has_the_file():
    questions = [
        Question(f"/{i}", "Events", {site: f"/{site}" for site in sites}) for i, sites in enumerate(["ab", "b"])
    ]
    made, _, sent, cache, answer = begin(questions)
    made.begin()
    made.site_answered("a")
    (task,) = sent
    assert (task.site, task.count) == ("a", 1)
    assert list(made.take(*answer(sent.pop(), [RECORD]))) == [("/0", "Events")]
    assert (made.left, sent) == (1, [])
    made.site_answered("b")
    assert list(made.take(*answer(sent.pop(), [RECORD]))) == [("/1", "Events")]
    assert made.left == 0
    assert cache.entered == [("a", "/a", "Events"), ("b", "/b", "Events")]


def test_nothing_is_taken_after_it_was_stopped():
    made, _, sent, _, answer = begin([Question(f"/{i}", "Events", {"a": "/a"}) for i in range(1000)])
    made.begin()
    made.site_answered("a")
    assert len(sent) == file_inspection._AHEAD * 2
    made.stop()
    assert made.left == 0
    assert made.take(*answer(sent.pop(), [RECORD] * file_inspection._FILES_A_TASK)) == {}
