"""What Parsl asks of an executor, answered for several that stand behind one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from uuid import UUID

from parsl.data_provider.file_noop import NoOpFileStaging
from parsl.data_provider.ftp import FTPInTaskStaging
from parsl.data_provider.http import HTTPInTaskStaging
from parsl.data_provider.staging import Staging
from parsl.data_provider.zip import ZipFileStaging
from parsl.executors.base import ParslExecutor
from parsl.monitoring.radios.base import RadioConfig

from cafetal.config import SiteTable
from cafetal.errors import ConfigError
from cafetal.federation.pools import make_endpoint
from cafetal.federation.site_start import plain_name

_lock = threading.Lock()
_labels: dict[str, dict[str, str]] = {}
"""``{folder of a Parsl run: {label of an endpoint there: label of the federation that has it}}``"""


class Facade(ParslExecutor):  # type: ignore[misc]  # parsl comes without types
    """An executor that has Parsl's files and monitoring done as its ``endpoints`` would."""

    endpoints: dict[str, ParslExecutor]
    _working_dir: str | None = None
    _folder = ""
    _forget_name: Callable[[], None] = staticmethod(lambda: None)

    @property
    def working_dir(self) -> str | None:
        """Where Parsl puts the files of tasks: what was set here, or what all endpoints have set."""
        folders = {getattr(endpoint, "working_dir", None) for endpoint in self.endpoints.values()}
        return self._working_dir or (folders.pop() if len(folders) == 1 else None)

    @working_dir.setter
    def working_dir(self, folder: str | None) -> None:
        self._working_dir = folder
        for endpoint in self.endpoints.values():
            endpoint.working_dir = folder

    @property
    def storage_access(self) -> list[Staging] | None:
        """How Parsl stages the files of tasks: as the endpoints would have it, if they agree.

        Otherwise the task itself fetches files where it can: a task of its own for that might put them where another
        endpoint does not see them.
        """
        stagings = [getattr(endpoint, "storage_access", None) for endpoint in self.endpoints.values()]
        alike = len({repr(staging) for staging in stagings}) == 1
        if alike and (stagings[0] is not None or len(stagings) == 1):
            return list(stagings[0]) if stagings[0] is not None else None
        return [NoOpFileStaging(), FTPInTaskStaging(), HTTPInTaskStaging(), ZipFileStaging()]

    def monitor_resources(self) -> bool:
        """Return whether Parsl shall measure tasks with a process beside each: only if all endpoints can have that.

        Parsl asks before an endpoint is chosen. In a pool of threads, such a process may wait for ever for a lock that
        it has inherited.
        """
        return bool(self.endpoints) and all(endpoint.monitor_resources() for endpoint in self.endpoints.values())

    def _take_folder(self) -> None:
        """Find a folder for the endpoints' files: Parsl's own for this run, under a name that needs no quotes.

        If another federation has endpoints with labels of ours, whose files lie there, it is a folder in that one.

        Raises:
            ConfigError: if there can be no such name.
        """
        folder = os.path.abspath(self.run_dir)
        with _lock:
            labels = _labels.setdefault(folder, {})
            shared = [label for label in self.endpoints if labels.get(label, self.label) != self.label]
            labels.update((label, self.label) for label in self.endpoints if label not in shared)
        if shared:
            folder = os.path.join(folder, self.label)
            os.makedirs(folder, exist_ok=True)
        self._folder, self._forget_name = plain_name(folder)

    def _leave_folder(self) -> None:
        self._forget_name()
        with _lock:
            labels = _labels.get(os.path.abspath(self.run_dir), {})
            for label in [label for label, federation in labels.items() if federation == self.label]:
                del labels[label]


def common_radio(endpoints: Iterable[ParslExecutor]) -> RadioConfig | None:
    """Return how tasks report to Parsl's monitoring, if all endpoints would have it done in the same way."""
    radios = [endpoint.remote_monitoring_radio for endpoint in endpoints]
    return radios[0] if radios and len({type(radio) for radio in radios}) == 1 else None


def as_executor(endpoint: object, table: SiteTable | None) -> ParslExecutor:
    """Return an executor as it is; that of a site by its name; the Globus Compute endpoint of a UUID, or of its text.

    Raises:
        ConfigError: if it is none of these.
    """
    if isinstance(endpoint, ParslExecutor):
        return endpoint
    if table is not None and endpoint in table.sites:
        return make_endpoint(str(endpoint), table.sites[str(endpoint)])
    from cafetal.federation.globus_compute.endpoint import GlobusComputeEndpoint  # the SDK takes a second to import

    label = label_of(endpoint)
    try:
        return GlobusComputeEndpoint(label, UUID(label))
    except ValueError:
        raise ConfigError(
            f"{endpoint!r} is neither a Parsl executor nor the UUID of a Globus Compute endpoint; a site's name needs "
            "the table (`sites`)."
        ) from None


def label_of(endpoint: object) -> str:
    """Return the label of an endpoint: a UUID in the usual form, any other name as it is."""
    try:
        return str(UUID(str(endpoint)))
    except ValueError:
        return str(endpoint)


def labels_of(endpoints: str | UUID | Sequence[str | UUID] | None) -> Sequence[str]:
    """Return the labels of one endpoint, of several, or of none."""
    if isinstance(endpoints, (str, UUID)):
        return [label_of(endpoints)]
    return [label_of(endpoint) for endpoint in endpoints or ()]
