"""From a site of the table to the Parsl executor that reaches it."""

from __future__ import annotations

import ipaddress
import math
import os
import shlex
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import psutil
from parsl.executors import HighThroughputExecutor
from parsl.executors.base import ParslExecutor
from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD
from parsl.launchers import SimpleLauncher, WrappedLauncher
from parsl.providers import LocalProvider
from parsl.providers.base import ExecutionProvider

from cafetal.config import Site
from cafetal.endpoints.batch_models import (
    BATCH_KINDS,
    BatchEndpoint,
    HTCondorEndpoint,
    JobsEndpoint,
    KubernetesEndpoint,
)
from cafetal.endpoints.endpoint_base import EndpointModel
from cafetal.endpoints.endpoint_models import GlobusEndpoint, LocalEndpoint, ParslEndpoint
from cafetal.errors import ConfigError
from cafetal.extensions import import_object
from cafetal.federation.jobs.batch_providers import make_provider
from cafetal.federation.jobs.containers import needed_folders, wrap_command
from cafetal.federation.jobs.kubernetes_pods import make_pods
from cafetal.federation.jobs.sandboxes import UNPACK, SandboxedExecutor, in_sandbox
from cafetal.federation.site_start import INTERCHANGE_LOG, is_plain
from cafetal.federation.worker_environment import hash_seed, worker_lines

# Importing Parsl takes half as long without these, which only other parts of it use; the workers may import them.
_LIGHT = "import runpy, sys; sys.modules.update(dict.fromkeys(('globus_compute_sdk', 'kubernetes', 'sqlalchemy')))"

_WORK = "work"
"""Folder in the scratch of a local site in which its workers run."""

_POLL = 100
"""Milliseconds after which Parsl's threads look up from waiting for messages, which wake them at once anyway: with its
own 10, each site costs this machine a hundredth of a core, and its interchange more, while nothing happens."""

# Parsl starts the interchange in our process group, where Ctrl-C in a terminal would kill it before what is
# finished can be merged; and it would outlive us if we are killed. What it writes to stderr is kept with its logs.
_INTERCHANGE = f"""
import io, os, pickle, threading, time
{_LIGHT}
os.setpgrp()
configuration = sys.stdin.buffer.read()
folder = pickle.loads(configuration)["logdir"]
os.makedirs(folder, exist_ok=True)
os.dup2(os.open(os.path.join(folder, "{INTERCHANGE_LOG}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 2)
sys.stdin = io.TextIOWrapper(io.BytesIO(configuration))
parent = os.getppid()
def follow():
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
threading.Thread(target=follow, daemon=True).start()
runpy.run_module("parsl.executors.high_throughput.interchange", run_name="__main__")
"""

# Parsl has each worker of a pool, and a process for their dictionary, import all anew, one after another. These are
# forked from the nursery, which imports while the pool itself does. Their sockets lie in a folder that is removed after
# them, if there is one, as a pool is killed, and cannot do that itself. It is where the system has such folders and not
# where the user does, as paths of sockets must be short. Modules in the folder where a pool runs are found last: a file
# there must not stand for one of Python's or Parsl's.
_FORKING = "; ".join(
    (
        _LIGHT,
        "import os, tempfile, multiprocessing.util",
        "tempfile.tempdir = next(filter(os.path.isdir, [os.environ.pop('CAFETAL_POOL', '')]), None)",
        "multiprocessing.util.get_temp_dir()",
        "tempfile.tempdir = None",
        "from multiprocessing import forkserver, get_context",
        "context = get_context('forkserver')",
        "context.set_forkserver_preload(['cafetal.federation.forkserver_preload'])",
        "forkserver.ensure_running()",
        "import parsl.multiprocessing",
        "parsl.multiprocessing.SpawnContext = context",
        "sys.path.append(os.getcwd())",
        "runpy.run_module('parsl.executors.high_throughput.process_worker_pool', run_name='__main__', alter_sys=True)",
    )
)

# If a pool is killed, its workers would wait for it for ever; and a pool that has not found its interchange yet waits
# for that for ever, when we are gone. So it gets a process group, which ends with it, and with us (if it can see us:
# not from a container). What is left of it is asked to end first: a process of Python's own removes semaphores then.
_TOGETHER = """bash -c 'set -m; cd "$CAFETAL_WORK" || cd /
export CAFETAL_POOL=$(env -u TMPDIR mktemp -d -t cafetal-XXXXXX); "$@" & pool=$!
(kill -0 {us} && while kill -0 {us}; do sleep 3; done && kill -9 $pool) 2>/dev/null & watch=$!
trap "kill -- -$pool" TERM; wait $pool; code=$?; [ $code -le 128 ] || wait $pool
(kill -- -$pool; for i in 1 2 3 4 5 6 7 8 9 10; do kill -0 -- -$pool || break; sleep 0.1; done
kill -9 -- -$pool -$watch) 2>/dev/null; rm -rf "$CAFETAL_POOL"; exit $code' pool """


Equip = Callable[[], str]
"""Unpacks an environment at a site, and gives its folder there; raises `EnvironmentFailed`."""


class EquippedExecutor(HighThroughputExecutor):  # type: ignore[misc]  # parsl comes without types
    """One whose workers run in an environment that is unpacked when it is started."""

    launch_cmd: str

    def __init__(self, equip: Equip, **options: object) -> None:
        super().__init__(**options)
        self._equip = equip

    def start(self) -> None:
        """As of any other, when the environment is there."""
        activate = f". {shlex.quote(self._equip())}/activate"
        if "@ACTIVATE@" in self.launch_cmd:  # inside a container, which would not keep what a job has activated
            self.launch_cmd = self.launch_cmd.replace("@ACTIVATE@", activate)
        else:
            self.provider.worker_init += f"\n{activate}"
        super().start()


def _pools(equip: Equip | None, **options: object) -> HighThroughputExecutor:
    return HighThroughputExecutor(**options) if equip is None else EquippedExecutor(equip, **options)


def make_endpoint(name: str, site: Site, equip: Equip | None = None, *, apart: bool = False) -> ParslExecutor:
    """Return the Parsl executor of a site, not yet started, labelled with the site's name.

    Args:
        equip: for an environment of ours in which its workers shall run.
        apart: whether workers of a local site run in a folder of the site's own, instead of the working directory, as
            Parsl's do: modules and files that only this machine has are not found there, as at any other site.

    Raises:
        ConfigError: if a ``parsl`` endpoint's factory cannot be imported, or returns something else.
    """
    return _BUILDERS[type(site.endpoint)](name, site, site.endpoint, equip, apart)


def _globus(name: str, site: Site, endpoint: GlobusEndpoint, equip: Equip | None, apart: bool) -> ParslExecutor:
    from cafetal.federation.globus_compute.endpoint import GlobusComputeEndpoint  # the SDK takes a second to import

    config = dict(endpoint.user_endpoint_config)
    if equip is not None:
        seed = f"export PYTHONHASHSEED={hash_seed()}"
        lines = [*filter(None, [config.get("worker_init")]), seed, f". {shlex.quote(equip())}/activate"]
        config["worker_init"] = "\n".join(lines)
    return GlobusComputeEndpoint(
        name,
        endpoint.endpoint,
        workers=site.workers,
        rehearsal=endpoint.rehearsal,
        user_endpoint_config=config or None,
        resource_specification=endpoint.resource_specification,
        trust=endpoint.trust,
    )


def _work(site: Site) -> str:
    """Return the shell lines by which the pool of a local site finds the folder to run in."""
    scratch = os.path.expanduser(os.path.expandvars(site.scratch))
    if "$" in scratch:  # a variable that only a worker has
        return "export CAFETAL_WORK=/"
    folder = shlex.quote(os.path.join(scratch, _WORK))
    return f"(umask 077; mkdir -p {folder}); export CAFETAL_WORK={folder}"


def _local(name: str, site: Site, endpoint: LocalEndpoint, equip: Equip | None, apart: bool) -> HighThroughputExecutor:
    work = _work(site) if apart else ""
    return _pools(
        equip,
        label=name,
        address="127.0.0.1",
        max_workers_per_node=site.workers,
        launch_cmd=_TOGETHER.format(us=os.getpid()) + _pool(equip),
        interchange_launch_cmd=[sys.executable, "-P", "-c", _INTERCHANGE],
        poll_period=_POLL,
        heartbeat_period=2,  # a worker that was killed is noticed once in this time
        heartbeat_threshold=30,
        encrypted=True,
        provider=LocalProvider(
            init_blocks=1,
            min_blocks=1,
            max_blocks=1,
            worker_init=f"{worker_lines()}\n{work}\n{endpoint.worker_init}",
            launcher=WrappedLauncher(endpoint.prepend) if endpoint.prepend else SimpleLauncher(),
        ),
    )


def _pool(equip: Equip | None, python: str | None = None) -> str:
    """Return the command of a worker pool.

    By the interpreter and not by the script's name, as a venv need not be on PATH.

    Args:
        python: an interpreter in place of that of this machine.
    """
    python = "python3" if equip is not None else python or shlex.quote(sys.executable)
    return str(DEFAULT_LAUNCH_CMD.replace("process_worker_pool.py", f'{python} -P -c "{_FORKING}"'))


def _pool_of_job(site: Site, endpoint: BatchEndpoint, equip: Equip | None) -> str:
    """Return the command of a worker pool in a job, inside the container of the site if it has one."""
    container = endpoint.container
    if container is None:
        return _pool(equip, endpoint.python)
    command = _pool(equip, container.python)
    if equip is not None:
        command = f"sh -c '@ACTIVATE@; exec \"$@\"' sh {command}"
    own_python = equip is None and container.python is None
    return wrap_command(container, command, needed_folders(site, own_python=own_python))


def _batch(name: str, site: Site, endpoint: BatchEndpoint, equip: Equip | None, apart: bool) -> HighThroughputExecutor:
    provider = make_provider(endpoint, _workers_of_job(site, endpoint), worker_lines())
    executor = _jobs(name, site, endpoint, partial(_pools, equip), _pool_of_job(site, endpoint, equip), provider)
    executor.shared_folder = _private_folder(_shared_scratch(site))
    return executor


def _htcondor(
    name: str, site: Site, endpoint: HTCondorEndpoint, equip: Equip | None, apart: bool
) -> HighThroughputExecutor:
    if not endpoint.sandbox:
        return _batch(name, site, endpoint, equip, apart)
    provider = make_provider(endpoint, _workers_of_job(site, endpoint), f"{UNPACK}\n{worker_lines()}")
    command = in_sandbox(_pool(None, endpoint.python))
    executor = _jobs(name, site, endpoint, SandboxedExecutor, command, provider)
    executor.shared_folder = _private_folder(endpoint.submit_folder)
    return executor


def _kubernetes(
    name: str, site: Site, endpoint: KubernetesEndpoint, equip: Equip | None, apart: bool
) -> HighThroughputExecutor:
    provider = make_pods(endpoint, _workers_of_job(site, endpoint), worker_lines())
    executor = _jobs(name, site, endpoint, partial(_pools, equip), _pool(equip, endpoint.python), provider)
    executor.shared_folder = _private_folder(_shared_scratch(site))
    return executor


def _workers_of_job(site: Site, endpoint: JobsEndpoint) -> int:
    return math.ceil(site.workers / endpoint.jobs)


def _jobs(
    name: str,
    site: Site,
    endpoint: JobsEndpoint,
    make: Callable[..., HighThroughputExecutor],
    command: str,
    provider: ExecutionProvider,
) -> HighThroughputExecutor:
    """Return the executor whose pools are started by jobs that connect to this machine."""
    addresses = numbers(endpoint.address)
    executor = make(
        label=name,
        address=addresses[0],
        max_workers_per_node=_workers_of_job(site, endpoint),
        launch_cmd=command,
        interchange_launch_cmd=[sys.executable, "-P", "-c", _INTERCHANGE],
        poll_period=_POLL,
        heartbeat_period=10,
        heartbeat_threshold=60,
        encrypted=True,
        **({} if endpoint.port_range is None else {"worker_port_range": endpoint.port_range}),
        provider=provider,
    )
    if len(addresses) > 1:  # workers try all; where Parsl finds them itself, it asks a server on the Internet too
        executor.address, executor.all_addresses = None, set(addresses)
    return executor


def _shared_scratch(site: Site) -> str | None:
    """Return the scratch of a site whose nodes share it with this machine; ``None`` if it is not known here.

    Raises:
        ConfigError: if its name has what a job script cannot have.
    """
    scratch = os.path.abspath(os.path.expanduser(os.path.expandvars(site.scratch)))
    if "$" in scratch:
        return None
    if not is_plain(scratch):
        raise ConfigError(f"`scratch: {site.scratch}` cannot be used in a job script. Choose a folder without spaces.")
    return scratch


def _private_folder(base: str | None) -> str | None:
    """Make a folder for what the batch system, and nodes that share it, must see: scripts, certificates and logs.

    Where there is no base, or it cannot be written, there is none.
    """
    if base is None:
        return None
    folder = os.path.join(os.path.expanduser(os.path.expandvars(base)), "parsl")
    try:
        os.makedirs(folder, exist_ok=True, mode=0o700)
        return tempfile.mkdtemp(prefix="run-", dir=folder)
    except OSError:
        return None


def numbers(name: str | None) -> list[str]:
    """Return the addresses by which workers may find this machine, as numbers: Parsl's interchange takes no names.

    Args:
        name: a name, number or network interface of this machine; ``None``: all that it has.

    Raises:
        ConfigError: if the name cannot be resolved.
    """
    interfaces = {
        interface: [address.address for address in addresses if address.family == socket.AF_INET]
        for interface, addresses in psutil.net_if_addrs().items()
    }
    if name in interfaces:
        return sorted(interfaces[name])
    files = {address for addresses in interfaces.values() for address in addresses}
    if name is None:
        return sorted(files)
    with suppress(ValueError):
        return [str(ipaddress.ip_address(name))]
    try:
        resolved = {str(info[4][0]) for info in socket.getaddrinfo(name, None, socket.AF_INET)}
    except OSError as error:
        raise ConfigError(
            f"`address: {name}` cannot be resolved on this machine ({error}). Give its IP address."
        ) from None
    # Debian resolves a machine's own name to 127.0.1.1, by which no other finds it.
    return sorted(resolved | files if all(number.startswith("127.") for number in resolved) else resolved)


def _from_factory(name: str, site: Site, endpoint: ParslEndpoint, equip: Equip | None, apart: bool) -> ParslExecutor:
    factory = import_object(endpoint.factory)
    try:
        executor = factory(label=name, workers=site.workers, **endpoint.options)
    except Exception as error:
        raise ConfigError(
            f"The factory {endpoint.factory} of the site {name} failed: {type(error).__name__}: {error}."
        ) from error
    if not isinstance(executor, ParslExecutor) or executor.label != name:
        raise ConfigError(
            f"The factory {endpoint.factory} of the site {name} returned {executor!r}; expected a Parsl executor "
            f"with the label {name!r}."
        )
    return executor


_BUILDERS: dict[type[EndpointModel], Callable[[str, Site, Any, Equip | None, bool], ParslExecutor]] = {
    LocalEndpoint: _local,
    **dict.fromkeys(BATCH_KINDS, _batch),
    HTCondorEndpoint: _htcondor,
    KubernetesEndpoint: _kubernetes,
    GlobusEndpoint: _globus,
    ParslEndpoint: _from_factory,
}
"""What makes the executor of each kind of endpoint, of the arguments of `make_endpoint`."""
