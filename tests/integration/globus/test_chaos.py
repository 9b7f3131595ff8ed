"""A fixed sample of disturbed runs at Globus Compute sites; ./scripts/chaos --globus plays more of them."""

import pytest
from tests.chaos.campaign import campaign

pytestmark = [pytest.mark.sites, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def place(rehearsal, tmp_path_factory):
    """The sites of the rehearsal, for one run after another."""
    with campaign(tmp_path_factory.mktemp("chaos"), rehearsal) as made:
        yield made


@pytest.mark.parametrize("seed", [2, 3, 4, 6])
def test_a_disturbed_run(federated, place, seed):
    result = place.play(place.schedule(seed))
    print(f"{result.seconds:.0f} s, {result.to_json()['ended']}: {result.schedule}")
    assert not result.complaints, f"{result.schedule}: {result.complaints}"
