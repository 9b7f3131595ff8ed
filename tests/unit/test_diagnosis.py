"""What `cafetal doctor` finds, each fault with a remedy."""

import datetime
import importlib.metadata
import json
import socket

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cafetal import diagnosis
from cafetal.cli import cli
from cafetal.config import load_sites
from cafetal.errors import ConfigError
from cafetal.fileset import load


@pytest.fixture(autouse=True)
def no_logins(monkeypatch, tmp_path):
    """No login of the user who runs the tests counts."""
    for name in ("BEARER_TOKEN", "BEARER_TOKEN_FILE", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("X509_USER_PROXY", str(tmp_path / "no-proxy"))
    monkeypatch.setattr("cafetal.worker.site_logins.SHARED", str(tmp_path))


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def write_proxy(path, hours):
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "somebody")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=20))
        .not_valid_after(now + datetime.timedelta(hours=hours))
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def states(findings):
    return {finding.subject: finding.state for finding in findings}


def test_this_machine_is_fit():
    findings = diagnosis.diagnose(lambda: None, lambda: None)
    assert set(states(findings).values()) == {"ok"}
    assert {"Python", "packages", "disk", "site table"} <= states(findings).keys()


def test_packages_that_do_not_fit(monkeypatch):
    promised = ["numpy>=999", "no-such-package>=1", "click>=1", "xrootd>=999; extra == 'xrootd'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: promised)
    numpy, absent = diagnosis.check_packages()
    assert (numpy.state, numpy.remedy) == ("problem", "pip install 'numpy>=999'")
    assert "no-such-package is not installed" in absent.text


def test_a_full_disk_and_one_that_cannot_be_written(monkeypatch, tmp_path):
    monkeypatch.setattr(diagnosis, "_LITTLE", 1e30)
    assert {finding.state for finding in diagnosis.check_disk()} == {"warning"}
    monkeypatch.setattr(diagnosis.os, "access", lambda path, mode: False)
    findings = list(diagnosis.check_disk())
    assert {finding.state for finding in findings} == {"problem"}
    assert any("CAFETAL_CACHE" in finding.remedy for finding in findings)


def test_a_wrong_site_table_stops_nothing_else():
    def wrong():
        raise ConfigError("sites.yaml cannot be used: nonsense")

    findings = diagnosis.diagnose(wrong, lambda: None)
    assert states(findings)["site table"] == "problem"
    assert states(findings)["packages"] == "ok"


def test_programs_of_a_batch_system(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    table = load_sites({"sites": {"desy": {"endpoint": "slurm", "pfn": "/data", "scratch": str(tmp_path)}}})
    findings = list(diagnosis.check_endpoints(table))
    assert [finding.text.split()[0] for finding in findings] == ["sbatch", "squeue", "scancel"]
    assert all("login node" in finding.remedy for finding in findings)


def test_globus_without_a_login(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("GLOBUS_COMPUTE_CLIENT_ID", "GLOBUS_COMPUTE_CLIENT_SECRET", "CAFETAL_REHEARSAL"):
        monkeypatch.delenv(name, raising=False)
    endpoint = {"kind": "globus_compute", "endpoint": "11111111-2222-3333-4444-555555555555"}
    table = load_sites({"sites": {"far": {"endpoint": endpoint, "pfn": "/data", "scratch": "/s"}}})
    (finding,) = diagnosis.check_endpoints(table)
    assert finding.state == "problem"
    assert "cafetal sites login" in finding.text


@pytest.mark.parametrize(("hours", "state"), [(-1, "problem"), (0.5, "warning"), (9, "ok")])
def test_a_proxy_ends(monkeypatch, tmp_path, hours, state):
    write_proxy(tmp_path / "proxy", hours)
    monkeypatch.setenv("X509_USER_PROXY", str(tmp_path / "proxy"))
    (finding,) = diagnosis.check_logins(["root://eos//store"])
    assert finding.state == state
    assert bool(finding.remedy) is (state != "ok")


def test_a_client_of_xrootd(monkeypatch):
    """Only workers of this machine need it here."""
    monkeypatch.setattr(diagnosis.importlib.util, "find_spec", lambda name: None)
    (finding,) = diagnosis.check_clients(["root://eos//store"])
    assert (finding.state, finding.remedy) == ("problem", "pip install 'cafetal[xrootd]'")
    assert not list(diagnosis.check_clients(["https://eos/store", "/data"]))
    far = {"endpoint": {"kind": "slurm"}, "pfn": "root://127.0.0.1:1//store", "scratch": "/s"}
    table = load_sites({"sites": {"far": far}})
    assert "XRootD" not in states(diagnosis.diagnose(lambda: table, lambda: None))


def test_no_login_matters_for_files_behind_servers_only():
    assert [finding.state for finding in diagnosis.check_logins(["root://eos//store"])] == ["warning"]
    assert not list(diagnosis.check_logins(["/data/"]))


def test_servers_that_answer_and_others(port):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        unused = closed.getsockname()[1]
    urls = [
        f"root://127.0.0.1:{port}//a",
        f"root://127.0.0.1:{port}//b",
        f"https://127.0.0.1:{unused}/",
        "/data",
        "$X/a",
    ]
    addresses = diagnosis.servers(urls)
    assert addresses == sorted({("127.0.0.1", port), ("127.0.0.1", unused)})
    states_by_server = {finding.text.split()[0]: finding.state for finding in diagnosis.check_servers(addresses)}
    assert states_by_server == {f"127.0.0.1:{port}": "ok", f"127.0.0.1:{unused}": "warning"}
    assert diagnosis.servers(["root://eos:port//a"]) == []
    assert diagnosis.servers(["root://eos//a", "davs://desy/b", "root://$HOST//c"]) == [("desy", 443), ("eos", 1094)]


def test_files_without_a_replica():
    table = load_sites({"sites": {name: {"pfn": f"/{name}", "scratch": "/s"} for name in ("desy", "cern")}})
    whole = load({"d": {"files": {"/a.root": {"replicas": ["desy"]}}}})
    assert diagnosis.find_files(table, whole)[1].state == "ok"
    _, finding = diagnosis.find_files(table, load({"d": {"files": {"/a.root": "Events"}}}))
    assert finding.state == "problem"
    assert "/a.root" in finding.text


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["doctor", "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    assert {finding["state"] for finding in json.loads(result.output)} == {"ok"}
    (tmp_path / "sites.yaml").write_text("sites: {a: {pfn: /data}}")
    result = CliRunner().invoke(cli, ["doctor", "--sites", "sites.yaml"], catch_exceptions=False)
    assert result.exit_code == 1
    assert "problem  site table: " in result.output


def test_storage_elements_and_redirectors_are_asked_too(port, tmp_path):
    table = {"sites": {"a": {"scratch": str(tmp_path)}}, "storage": {"T2": f"root://127.0.0.1:{port}/"}}
    sites = load_sites(table | {"redirectors": ["root://127.0.0.1:1/"]})
    findings = [finding for finding in diagnosis.diagnose(lambda: sites, lambda: None) if finding.subject == "server"]
    assert {finding.text.split()[0]: finding.state for finding in findings} == {
        "127.0.0.1:1": "warning",
        f"127.0.0.1:{port}": "ok",
    }
