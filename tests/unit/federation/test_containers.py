"""How each runtime starts the workers of a job inside an image; only podman is run for real (test_containers.py)."""

import sys

import pytest

from cafetal.config import Site, load_sites
from cafetal.endpoints.container_model import Container
from cafetal.errors import ConfigError
from cafetal.federation.jobs.containers import VARIABLES, needed_folders, wrap_command
from cafetal.federation.pools import make_endpoint

IMAGE = "registry.org/coffea:1"
VOLUMES = "-v /scratch:/scratch -v /data:/data"
LET_IN = " ".join(f"-e {name}" for name in VARIABLES)


@pytest.mark.parametrize(
    ("runtime", "expected"),
    [
        ("apptainer", f"apptainer exec --nv --bind /scratch,/data {IMAGE} pool --port 1"),
        ("podman", f"podman run --rm --init --network host --nv {VOLUMES} {LET_IN} {IMAGE} pool --port 1"),
        (
            "docker",
            f"docker run --rm --init --network host -u $(id -u):$(id -g) --nv {VOLUMES} {LET_IN} {IMAGE} pool --port 1",
        ),
        ("podman-hpc", f"podman-hpc run --rm --net=host --nv {VOLUMES} {LET_IN} {IMAGE} pool --port 1"),
        ("shifter", f'shifter --image=docker:{IMAGE} --volume="/scratch:/scratch;/data:/data" --nv pool --port 1'),
    ],
)
def test_commands(runtime, expected):
    container = Container(image=IMAGE, runtime=runtime, binds=("/data",), options=("--nv",))
    assert wrap_command(container, "pool --port 1", ["/scratch"]) == expected


def test_what_is_seen_inside():
    site = Site.model_validate({"pfn": "/data/cms/", "scratch": "/scratch/me"})
    assert needed_folders(site, own_python=False) == ["/scratch/me", "/tmp", "/data/cms"]
    assert sys.prefix in needed_folders(site, own_python=True)
    far = Site.model_validate({"pfn": {"^/(.*)": "root://host//$1"}, "scratch": "/scratch/me"})
    assert needed_folders(far, own_python=False) == ["/scratch/me", "/tmp"]
    for scratch in ("/scratch/$NOBODY_HAS_THIS/me", "/scratch/a,b"):
        with pytest.raises(ConfigError, match="inside a container"):
            needed_folders(Site.model_validate({"scratch": scratch}), own_python=False)


@pytest.mark.parametrize(
    "value", [{"image": "a b"}, {"image": "a", "binds": ["x"]}, {"image": "a", "options": ["{x}"]}]
)
def test_what_a_shell_would_understand_is_refused(value):
    site = {"endpoint": {"kind": "slurm", "container": value}, "scratch": "/s"}
    with pytest.raises(ConfigError, match="container"):
        load_sites({"sites": {"x": site}})


def test_an_environment_is_activated_inside(tmp_path):
    site = Site.model_validate(
        {
            "endpoint": {"kind": "slurm", "container": {"image": "a.sif"}},
            "scratch": str(tmp_path),
            "env": "bundle",
        }
    )
    with_bundle = make_endpoint("x", site, lambda: "/e")
    assert "apptainer exec" in with_bundle.launch_cmd
    assert "sh -c '@ACTIVATE@; exec \"$@\"' sh python3 -P" in with_bundle.launch_cmd
    assert sys.prefix not in with_bundle.launch_cmd
    assert sys.executable in make_endpoint("x", site).launch_cmd
