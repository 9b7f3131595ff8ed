"""Plain data comes back as it was; batches keep every parcel and every limit; the pace is never exceeded."""

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from cafetal.federation.globus_compute.rate_limit import RateLimit
from cafetal.federation.globus_compute.submitter import BATCH_BYTES, BATCH_TASKS, batch_length
from cafetal.worker.plain_text import decode, encode

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
keys = st.text() | st.integers() | st.tuples(st.integers(), st.text()) | st.sampled_from(["$bytes", "$dict", "$x"])
plain = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
        | st.sets(st.integers() | st.text(), max_size=4)
        | st.frozensets(st.binary(), max_size=4)
    ),
    max_leaves=20,
)


@given(plain)
def test_plain_data_survives_the_way(value):
    back = decode(json.loads(json.dumps(encode(value))))
    assert back == value
    assert type(back) is type(value)


def test_numbers_that_are_none():
    assert math.isnan(decode(json.loads(json.dumps(encode(math.nan)))))


@given(st.lists(st.tuples(st.integers(1, BATCH_BYTES), st.sampled_from([{}, {"nodes": 1}])), max_size=400))
def test_batches_conserve_parcels(parcels):
    left, batches = list(parcels), []
    while left:
        count = batch_length(left)
        assert count >= 1
        batches.append(left[:count])
        left = left[count:]
    assert [parcel for batch in batches for parcel in batch] == parcels
    for batch in batches:
        assert len(batch) <= BATCH_TASKS
        assert sum(size for size, _ in batch) <= BATCH_BYTES
        assert all(specification == batch[0][1] for _, specification in batch)


@given(st.lists(st.floats(0, 3), min_size=1, max_size=80), st.integers(1, 6))
def test_no_window_has_more_requests_than_allowed(pauses, allowed):
    pace, now, taken = RateLimit(allowed, 10.0), 0.0, []
    for pause in pauses:
        now += pause
        now += pace.reserve(now)
        taken.append(now)
    for number, moment in enumerate(taken):
        assert sum(moment - 10.0 + 1e-6 < other <= moment for other in taken[: number + 1]) <= allowed
