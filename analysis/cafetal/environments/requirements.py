"""What code needs: its own modules, which travel by value, and installed packages with all that these need."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import cafetal.worker
from cafetal.config import SiteTable
from cafetal.environments.lock_files import Lock, make_lock, read_lock
from cafetal.environments.sources import imports, is_local, local_sources
from cafetal.errors import EnvironmentFailed

_ALWAYS = ("parsl", "dill", "cloudpickle", "coffea")
"""Packages without which no worker runs."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What was found."""

    local: tuple[str, ...]
    """The user's own modules, as paths from where they are imported; they travel with each run."""
    imported: Mapping[str, str]
    """``{module: package}`` of what these import."""
    missing: tuple[str, ...]
    """Modules that these may import, and that are not installed here."""
    packages: Mapping[str, str]
    """``{package: version}``: these, what cafetal's tasks import, and all that they need."""

    @property
    def lock(self) -> Lock:
        """For this Python on this kind of machine."""
        return make_lock(self.packages)


def detect(modules: Iterable[str], *, also: Sequence[str] = (), packages: Sequence[str] = ()) -> Needs:
    """Return what some modules need, by their imports, wherever in the source these are.

    Args:
        modules: names under which they can be imported now.
        also: modules that are imported by names that no source shows.
        packages: that are needed though nobody imports them.

    Raises:
        EnvironmentFailed: if one of the ``packages`` is not installed here.
    """
    sources = local_sources([*modules, *also])
    names = {name for path, source in sources.items() for name in imports(source, _package_of(path))}
    installed, missing = _installed({*names, *modules, *also})
    roots = {*_ALWAYS, *installed.values(), *_of_the_worker().values(), *packages}
    return Needs(tuple(sorted(sources)), installed, tuple(sorted(missing)), close(roots))


def lock_for(table: SiteTable, modules: Iterable[str] = ()) -> Lock:
    """Return the lock of the bundles that sites of a table are sent: the one that it names, or what is needed.

    Args:
        modules: of the processor; those that are not installed are the user's own.

    Raises:
        EnvironmentFailed: if it cannot be read, or a package is not installed here.
    """
    if table.environment.lock is not None:
        return read_lock(Path(table.environment.lock))
    equipped = (site.endpoint.environment for site in table.sites.values() if site.env != "existing")
    agents = "send" in equipped
    packages = [*table.environment.packages, *(["globus-compute-endpoint"] if agents else [])]
    return detect(modules, also=table.environment.modules, packages=packages).lock


def _package_of(path: str) -> str:
    module = path.removesuffix(".py").replace("/", ".")
    return module.removesuffix(".__init__") if module.endswith(".__init__") else module.rpartition(".")[0]


def _installed(names: Iterable[str]) -> tuple[dict[str, str], set[str]]:
    """``{top-level module: package}`` of the modules that are installed, and those that are not there at all."""
    owners_of: dict[str, str] = {}
    missing: set[str] = set()
    for top in {name.partition(".")[0] for name in names} - {"", "cafetal", "__main__", "__future__"}:
        if top in sys.stdlib_module_names or is_local(top):
            continue
        owners = _owners().get(top)
        if owners:
            owners_of[top] = canonicalize_name(owners[0])
        else:
            missing.add(top)
    return owners_of, missing


@cache
def _owners() -> Mapping[str, Sequence[str]]:
    return importlib.metadata.packages_distributions()


@cache
def _of_the_worker() -> Mapping[str, str]:
    """Return what cafetal's own tasks import, as far as it is installed here.

    The rest is needed for some stores only.
    """
    folder = Path(cafetal.worker.__path__[0])
    names = {name for path in folder.glob("*.py") for name in imports(path.read_bytes(), "cafetal.worker")}
    return _installed(names)[0]


def close(roots: Iterable[str]) -> dict[str, str]:
    """``{package: version}`` of installed packages, with all that they need, by what each says of itself.

    Raises:
        EnvironmentFailed: if a root is not installed here.
    """
    versions: dict[str, str] = {}
    done: set[tuple[str, frozenset[str]]] = set()
    todo = [(Requirement(root), True) for root in sorted(roots)]
    while todo:
        requirement, is_root = todo.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in done:
            continue
        done.add((name, extras))
        try:
            distribution = importlib.metadata.distribution(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            if is_root:
                raise EnvironmentFailed(f"Package {requirement.name} is required, but is not installed here.") from None
            continue  # only on other machines, or left out on purpose
        versions[name] = distribution.version
        for line in distribution.requires or ():
            dependency = Requirement(line)
            if dependency.marker is None or any(
                dependency.marker.evaluate({"extra": extra}) for extra in ("", *extras)
            ):
                todo.append((dependency, False))
    return versions


def named(text: str) -> str:
    """Return the module in ``FILE.py``, ``FILE.py:CLASS``, ``module`` or ``module:function``.

    Files can be imported then.

    Raises:
        EnvironmentFailed: if there is no such file.
    """
    target = re.sub(r":\w+$", "", text)
    if not target.endswith(".py"):
        return target
    path = Path(target).resolve()
    if not path.is_file():
        raise EnvironmentFailed(f"The file {target} does not exist.")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    return path.stem
