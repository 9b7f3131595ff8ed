"""Which user endpoint a core endpoint has forked for us."""

from uuid import uuid4

from cafetal.federation.globus_compute import user_endpoints


def test_user_endpoints_are_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("CAFETAL_CACHE", str(tmp_path))
    core, user = uuid4(), uuid4()
    assert user_endpoints.recall(core, None) is None
    user_endpoints.remember(core, None, user)
    assert user_endpoints.recall(core, {}) == user
    assert user_endpoints.recall(core, {"partition": "gpu"}) is None
