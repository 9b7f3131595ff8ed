"""Sets of chunks behave as sets, except that they refuse what would count twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cafetal.worker.chunkset import ChunkSet, Overlap

ids = st.sets(st.integers(0, 200))


@given(ids, ids)
def test_like_sets(a, b):
    one, two = ChunkSet.of(a), ChunkSet.of(b)
    assert set(one) == a
    assert len(one) == len(a)
    assert list(one) == sorted(a)
    assert set(one.minus(two)) == a - b
    assert (one == two) == (a == b)
    assert ChunkSet.parse(str(one)) == one
    if a & b:
        with pytest.raises(Overlap):
            one.union(two)
    else:
        assert set(one.union(two)) == a | b
        assert one.union(two) == two.union(one)
        assert hash(one.union(two)) == hash(two.union(one))


@given(st.lists(st.integers(0, 50), min_size=1))
def test_no_id_twice(values):
    if len(set(values)) < len(values):
        with pytest.raises(Overlap):
            ChunkSet.of(values)
    else:
        assert len(ChunkSet.of(values)) == len(values)


def test_text_form():
    assert str(ChunkSet.of([0, 1, 2, 5, 7, 8])) == "0-2,5,7-8"
    assert str(ChunkSet()) == ""
    assert not ChunkSet.parse("")
    assert len(str(ChunkSet.of(range(10_000)))) < 10
    assert repr(ChunkSet.of([3])) == "ChunkSet.parse('3')"
    with pytest.raises(ValueError, match="not a range"):
        ChunkSet([(3, 3)])
