"""What has numbers behaves as a dictionary that gives no number twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cafetal.scheduling.chunks import Chunk
from cafetal.scheduling.indexed import Indexed
from cafetal.scheduling.ledger import Ledger
from cafetal.worker.chunkset import ChunkSet

steps = st.lists(st.tuples(st.sampled_from(["add", "extend", "remove"]), st.integers(-2, 12)), max_size=20)


@given(st.integers(0, 6), steps)
def test_like_a_dictionary(size, steps):
    planned = [f"planned {i}" for i in range(size)]
    mine, true, given_before = Indexed(planned), dict(enumerate(planned)), set(range(size))
    for step, number in steps:
        if step == "add" and number >= 0 and number not in given_before:
            mine.add({number: f"added {number}"})
            true[number] = f"added {number}"
            given_before.add(number)
        elif step == "extend" and number >= size and not given_before & {number, number + 1}:
            more = {number: f"later {number}", number + 1: f"later {number + 1}"}
            mine.extend(number, list(more.values()))
            true |= more
            given_before |= more.keys()
            size = number + 2 if number == size else size
        elif step == "extend" and number >= 0:
            with pytest.raises(KeyError):
                mine.extend(number, ["again", "and again"])
        elif step == "remove" and number in true:
            mine.remove(number)
            del true[number]
        elif step != "extend" and (step == "remove" or number in given_before):
            with pytest.raises(KeyError):
                mine.remove(number) if step == "remove" else mine.add({number: "again"})
        assert dict(mine) == true
        assert len(mine) == len(true)
        assert sorted(mine) == sorted(true)
        assert all((number in mine) == (number in true) for number in range(-3, 16))


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 4)), max_size=8))
def test_plans_that_grow(steps):
    """Chunks that are planned later get numbers after those that parts of others have got meanwhile."""
    ledger, next_number, planned = Ledger(), 0, 0
    for cut, count in steps:
        numbers = range(next_number, next_number + (2 if cut else count))
        if cut and ledger.chunks:
            number = max(ledger.chunks)
            whole = ledger.chunks[number]
            origin = number if whole.origin is None else whole.origin
            edges = (whole.start, (whole.start + whole.stop) // 2, whole.stop)
            parts = [Chunk(i, "d", "/f", *edges[n : n + 2], ("a",), origin=origin) for n, i in enumerate(numbers)]
            ledger.cut(number, parts)
        elif not cut:
            ledger.plan([Chunk(i, "d", "/f", 100 * i, 100 * i + 100, ("a",)) for i in numbers])
            planned += count
        else:
            continue
        next_number = numbers.stop
    assert ledger.events(ledger.planned) == 100 * planned
    ledger.count(ledger.planned)
    assert len(ledger.whole()) == planned
    assert not ledger.missing


@given(st.data())
def test_a_chunk_is_whole_if_all_its_parts_were_counted(data):
    """Whatever was cut, parts of parts too: by the definition of it, chunk by chunk."""
    ledger, origins = Ledger([Chunk(i, "d", "/f", 100 * i, 100 * i + 100, ("a",)) for i in range(5)]), dict.fromkeys(())
    for _ in range(data.draw(st.integers(0, 6))):
        number = data.draw(st.sampled_from(sorted(ledger.chunks)))
        whole, new = ledger.chunks[number], max(5, *(i + 1 for i in (*origins, 4)))
        origin = number if whole.origin is None else whole.origin
        middle = (whole.start + whole.stop) // 2
        ledger.cut(
            number,
            [
                Chunk(new, "d", "/f", whole.start, middle, ("a",), origin=origin),
                Chunk(new + 1, "d", "/f", middle, whole.stop, ("a",), origin=origin),
            ],
        )
        origins |= {new: origin, new + 1: origin}
    counted = data.draw(st.sets(st.sampled_from(sorted(ledger.chunks))))
    ledger.count(ChunkSet.of(counted))
    parts = {i: {part for part in ledger.chunks if origins.get(part, part) == i} for i in range(5)}
    assert set(ledger.whole()) == {i for i in range(5) if parts[i] <= counted}
    assert ledger.events(ledger.planned) == 500
