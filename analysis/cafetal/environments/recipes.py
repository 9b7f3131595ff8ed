"""Ways to make the environment of a lock without us: at a site with a network, from files, or in an image."""

from __future__ import annotations

from cafetal.environments.lock_files import Lock

LOCK = "lock.txt"


def recipes(lock: Lock) -> dict[str, str]:
    """``{file name: content}``; each stands beside the lock, `LOCK`, and says in its first lines what it is for."""
    minor = ".".join(lock.python.split(".")[:2])
    return {
        LOCK: lock.text,
        "uv.sh": _UV.format(python=minor),
        "wheelhouse.sh": _WHEELHOUSE.format(python=minor),
        "conda-environment.yml": _CONDA.format(python=lock.python),
        "Dockerfile": _DOCKER.format(python=lock.python),
        "apptainer.def": _APPTAINER.format(python=lock.python),
    }


_UV = """\
#!/bin/sh
# At a site with a network: sh uv.sh FOLDER creates an environment there, or updates it.
set -e
here=$(cd "$(dirname "$0")" && pwd)
[ -d "$1" ] || uv venv --python {python} "$1"
uv pip sync --python "$1/bin/python" "$here/lock.txt"
echo "In the site table: worker_init: . $1/bin/activate"
"""
_WHEELHOUSE = """\
#!/bin/sh
# For a site without a network: `sh wheelhouse.sh fetch` on a machine that has one puts all wheels into ./wheels;
# copy the folder there, and `sh wheelhouse.sh install FOLDER` creates an environment from them.
set -e
cd "$(dirname "$0")"
case $1 in
fetch) python{python} -m pip download --quiet --no-deps -d wheels -r lock.txt ;;
install)
    python{python} -m venv "$2"
    "$2/bin/python" -m pip install --quiet --no-index --no-deps --find-links wheels -r lock.txt
    ;;
*) echo "usage: $0 fetch | install FOLDER" >&2; exit 2 ;;
esac
"""
_CONDA = """\
# conda env create -n analysis -f conda-environment.yml; conda-pack -n analysis packs it into one file, to be unpacked
# at a site (source bin/activate, then conda-unpack once).
name: analysis
channels: [conda-forge]
dependencies:
  - python={python}
  - pip
  - pip: ["-r lock.txt", "--no-deps"]
"""
_DOCKER = """\
# docker build -t analysis . ; for `endpoint`s that start their workers in containers.
FROM python:{python}-slim
COPY lock.txt /lock.txt
RUN pip install --no-cache-dir --no-deps -r /lock.txt
"""
_APPTAINER = """\
# apptainer build analysis.sif apptainer.def; at a local site: prepend: apptainer exec -B /scratch analysis.sif
Bootstrap: docker
From: python:{python}-slim

%files
    lock.txt /lock.txt

%post
    pip install --no-cache-dir --no-deps -r /lock.txt
"""
