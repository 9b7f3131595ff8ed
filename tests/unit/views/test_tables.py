"""Numbers as people read them."""

import pytest

from cafetal.views.tables import size


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (1_500, "1.5 kB"), (3e15, "3000.0 TB")])
def test_sizes(count, text):
    assert size(count) == text
