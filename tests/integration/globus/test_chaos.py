"""A fixed sample of disturbed runs at Globus Compute sites; ./scripts/chaos --globus plays more of them."""

import pytest
from tests.chaos.campaign import campaign

pytestmark = [pytest.mark.sites, pytest.mark.untraced, pytest.mark.timeout(1500)]


def test_a_sample_of_disturbed_runs(federated, tmp_path):
    with campaign(tmp_path, federated) as made:
        for seed in (2, 3, 4, 6):
            result = made.play(made.schedule(seed))
            print(f"{result.seconds:.0f} s, {result.to_json()['ended']}: {result.schedule}")
            assert not result.complaints, f"{result.schedule}: {result.complaints}"
