"""Kubernetes by its real client and Parsl's provider; a stand-in answers as the API, as no cluster was there."""

import sys

import pytest

from cafetal.config import load_sites
from cafetal.errors import ConfigError
from cafetal.federation.pools import make_endpoint
from tests.batch.kubernetes_api import Cluster
from tests.conftest import wait_until
from tests.integration.test_batch_systems import assert_all_processed

pytestmark = pytest.mark.sites


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    with Cluster(tmp_path, "cms") as cluster:
        # The client reads the variable when it is imported, which an earlier test may have done.
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(cluster.config))
        yield cluster


def table_of(folder, **keys):
    endpoint = {"kind": "kubernetes", "image": "coffea:2026", "namespace": "cms", "python": sys.executable, **keys}
    site = {"endpoint": endpoint, "workers": 2, "pfn": f"{folder}/data", "scratch": f"{folder}/scratch"}
    return load_sites({"sites": {"pods": site}, "routing": {"bundle_seconds": 1}})


def test_what_a_pod_asks_for(cluster, tmp_path):
    keys = {"volumes": {"claim": "/shared"}, "service_account": "me", "pull_secret": "registry", "user": 7, "group": 8}
    table = table_of(tmp_path, jobs=2, cores=3, memory=5, worker_init="export MINE=1", **keys)
    provider = make_endpoint("pods", table.sites["pods"]).provider
    job = provider.submit("true", 1, "parsl.pods")
    ((name, pod),) = cluster.pods.items()
    assert name == f"cafetal.{job}"
    spec = pod["spec"]
    (container,) = spec["containers"]
    assert container["image"] == "coffea:2026"
    assert container["resources"] == {
        "limits": {"cpu": "3", "memory": "5G"},
        "requests": {"cpu": "3", "memory": "5G"},
    }
    assert container["securityContext"] == {"runAsUser": 7, "runAsGroup": 8, "runAsNonRoot": False}
    assert container["volumeMounts"] == [{"mountPath": "/shared", "name": "claim"}]
    assert spec["volumes"] == [{"name": "claim", "persistentVolumeClaim": {"claimName": "claim"}}]
    assert (spec["serviceAccountName"], spec["imagePullSecrets"]) == ("me", [{"name": "registry"}])
    assert "export MINE=1" in container["args"][1]
    assert "PYTHONHASHSEED" in container["args"][1]
    wait_until(lambda: provider.status([job])[0].terminal)


def test_a_run_on_two_pods(cluster, tmp_path):
    assert_all_processed(table_of(tmp_path, jobs=2, address="127.0.0.1"))
    assert cluster.pods
    wait_until(lambda: all(process.poll() is not None for process in cluster.processes.values()))


def test_no_cluster(tmp_path, monkeypatch):
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="No Kubernetes cluster was found"):
        make_endpoint("pods", table_of(tmp_path).sites["pods"])
