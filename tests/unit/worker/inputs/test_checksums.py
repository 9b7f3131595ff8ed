"""Checksums of replicas."""

import pytest

from cafetal.worker.code import shipped_code, user_modules
from cafetal.worker.inputs import checksums as check


@pytest.fixture(autouse=True)
def forget_modules():
    yield
    user_modules._active, user_modules._names = None, ()
    shipped_code._load.cache_clear()


def test_what_is_sampled_is_the_same_everywhere():
    chosen = [lfn for i in range(2_000) if check.wanted("sample", lfn := f"/store/{i}.root")]
    assert 100 < len(chosen) < 350
    assert all(check.wanted("sample", lfn) for lfn in chosen)
    check.check(None, "root://host//store/a.root", "00000001")  # not on this machine's disks
