"""What travels to a site besides tasks: our worker code, the user's modules and files, and Runner's function.

Each goes as one file that bears the hash of its content, once a site.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickletools
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import cloudpickle
import lz4.frame

import cafetal.worker
from cafetal.config import SiteTable
from cafetal.environments import script_state
from cafetal.environments.sources import is_local
from cafetal.environments.user_code import Limits, collect
from cafetal.errors import ConfigError
from cafetal.shipping.code_digest import digest
from cafetal.shipping.processor_pickles import pickle_function
from cafetal.worker.code.applied_state import STATE
from cafetal.worker.inputs.file_names import prefixes


@dataclass(frozen=True, slots=True)
class Shipment:
    """Files for a site's code folder, and the names under which tasks ask for them."""

    archive: str
    """The zip of the worker code."""
    package: str
    """Its name when imported at the site."""
    function: str | None = None
    """The pickled function, if the tasks need one."""
    modules: str | None = None
    """The zip of the user's modules that go with it."""
    code_hash: str = ""
    """SHA-256 over the function, these modules and the auxiliary files, the same in each process."""
    names: frozenset[str] = frozenset()
    """Modules that the function, and what it holds, come from."""
    contents: Mapping[str, int] = field(default_factory=dict)
    """``{path: bytes}`` of the user's modules and data files in the zip."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """``{path here: reason}`` of data files beside the modules that do not travel."""
    state: tuple[str, ...] = ()
    """What the user's script has set in modules and classes, and travels with them."""
    state_left: tuple[str, ...] = ()
    """What it has set and does not travel."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """``{what it is: digest}`` of all that is in the hash of the code, so that it can be said what has changed."""
    aux: Mapping[str, str] = field(default_factory=dict)
    """``{name that the processor knows: name of the auxiliary file at the site}``"""
    aux_paths: Mapping[str, str] = field(default_factory=dict)
    """``{name that the processor knows: path of the auxiliary file on this machine}``"""
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def code(self) -> tuple[str, str]:
        """What `Federation.call` wants to know."""
        return self.archive, self.package


def pack_worker() -> Shipment:
    """Return the worker code alone."""
    return _pack_worker()


@cache
def _pack_worker() -> Shipment:
    folder = Path(cafetal.worker.__file__).parent
    sources = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.py"))}
    package = "cafetal_worker_" + hashlib.sha256(b"\0".join(sources.values())).hexdigest()[:16]
    content = _zip({f"{package}/{name}": source for name, source in sources.items()})
    name = _hashed(content, ".zip")
    return Shipment(archive=name, package=package, files={name: content})


def pack_function(
    function: object,
    aux: Mapping[str, str | Path] | None = None,
    *,
    modules: Iterable[str] = (),
    limits: Limits | None = None,
) -> Shipment:
    """Return the worker code, a function, the user's code that it and its objects come from, and auxiliary files.

    Args:
        modules: further modules, which no source names.
        limits: what of the user's code may travel.

    Raises:
        ConfigError: if an auxiliary file cannot be read.
    """
    worker = pack_worker()
    pickled = pickle_function(function)
    names_in_pickle = _modules_in(pickled, function)
    code = collect([*names_in_pickle, *modules], limits)
    live = script_state.find(_sources(code.files), _schema_of(function))
    if live.values:
        steady = {owner: dict(sorted(values.items())) for owner, values in sorted(live.values.items())}
        code.files[STATE] = json.dumps(steady).encode()
    archive = _zip(code.files)
    names = _hashed(pickled, ".pkl"), _hashed(archive, ".zip")
    files = {**worker.files, names[0]: pickled, names[1]: archive}
    aux_names: dict[str, str] = {}
    for name, path in sorted((aux or {}).items()):
        content = _read_aux(name, path)
        # Its own name stays at the end, as libraries tell the kind of a file by that.
        aux_names[name] = _hashed(content, "." + Path(path).name)
        files[aux_names[name]] = content
    parts = [digest(function), names[1], *(f"{name}={hashed}" for name, hashed in aux_names.items())]
    return Shipment(
        worker.archive,
        worker.package,
        function=names[0],
        modules=names[1],
        code_hash=hashlib.sha256("/".join(parts).encode()).hexdigest(),
        names=frozenset(names_in_pickle),
        parts=_parts(function, code.files, aux_names),
        contents={name: len(content) for name, content in code.files.items()},
        left_out=code.left_out,
        state=tuple(live.names),
        state_left=tuple(live.left),
        aux=aux_names,
        aux_paths={name: str(Path(path).absolute()) for name, path in (aux or {}).items()},
        files=files,
    )


def _read_aux(name: str, path: str | Path, most: int = -1) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(most)
    except OSError as error:
        raise ConfigError(f"The auxiliary file {name!r}, {path}, cannot be read: {error.strerror}.") from None


def check_aux(files: Mapping[str, str | Path]) -> None:
    """Check that auxiliary files can be read.

    Raises:
        ConfigError: if one cannot.
    """
    for name, path in files.items():
        _read_aux(name, path, 1)


def _sources(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the modules among files that travel: ``{name: source}``."""
    sources = {name.removesuffix(".py"): content for name, content in files.items() if name.endswith(".py")}
    return {name.removesuffix("/__init__").replace("/", "."): content for name, content in sources.items()}


def _wrapped(function: object) -> Iterator[object]:
    """Yield a function that Runner made, and the functions inside it."""
    step = function
    while step is not None:
        yield step
        step = next((argument for argument in getattr(step, "args", ()) if hasattr(argument, "keywords")), None)


def _schema_of(function: object) -> type | None:
    """Return the schema class that Runner has put into its function, if there is one."""
    for step in _wrapped(function):
        for argument in (*getattr(step, "args", ()), *getattr(step, "keywords", {}).values()):
            if isinstance(argument, type) and any(kind.__name__ == "BaseSchema" for kind in argument.__mro__):
                return argument
    return None


def _parts(function: object, files: Mapping[str, bytes], aux: Mapping[str, str]) -> dict[str, str]:
    """Return a digest of each part of the code: modules and data files, the processor's attributes, options, `aux`."""
    parts = {f"the file {name}": hashlib.sha256(content).hexdigest() for name, content in files.items()}
    parts |= {f"the auxiliary file {name!r}": hashed for name, hashed in aux.items()}
    for step in _wrapped(function):
        plain = [argument for argument in getattr(step, "args", ()) if not hasattr(argument, "keywords")]
        parts["the schema, or an option of Runner"] = digest([parts.get("the schema, or an option of Runner"), plain])
        for name, value in getattr(step, "keywords", {}).items():
            if name != "processor_instance":
                parts[f"the option `{name}`"] = digest(value)
                continue
            with suppress(Exception):  # of a class of the user's; without it less can be said of what has changed
                processor = _unpacked(value)
                parts["the class of the processor"] = digest(type(processor))
                content = processor.__reduce_ex__(2)[2]  # what is pickled of it
                for key, attribute in content.items() if isinstance(content, dict) else ():
                    parts[f"the processor's `{key}`"] = digest(attribute)
    return {name: content[:16] for name, content in parts.items()}


def processor_of(function: object) -> object:
    """Return the processor in a function that Runner has made; the function itself if there is none in it."""
    for step in _wrapped(function):
        if (packed := getattr(step, "keywords", {}).get("processor_instance")) is not None:
            return _unpacked(packed)
    return function


def _unpacked(processor: object) -> object:
    """Return a processor, which Runner may have pickled and compressed."""
    return cloudpickle.loads(lz4.frame.decompress(processor)) if isinstance(processor, bytes) else processor


def limits(table: SiteTable) -> Limits:
    """Return what may travel of the user's code, as a site table says; the folders of its local sites do not."""
    local = [site for site in table.sites.values() if site.endpoint.on_this_machine]
    folders = [prefix for site in local for prefix in (site.scratch, *prefixes(site.pfn)) if "://" not in prefix]
    code = table.code
    return Limits(code.exclude, tuple(Path(folder).resolve() for folder in folders), code.max_file, code.max_total)


def _hashed(content: bytes, suffix: str) -> str:
    return hashlib.sha256(content).hexdigest() + suffix


def _zip(files: dict[str, bytes]) -> bytes:
    """Return the same bytes for the same files, whenever and wherever it is made."""
    buffer = io.BytesIO()
    folders = {str(parent) + "/" for name in files for parent in Path(name).parents if str(parent) != "."}
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        # Packages without __init__.py are found only where the folder itself has an entry.
        for name in sorted({*files, *folders}):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), files.get(name, b""))
    return buffer.getvalue()


def _modules_in(pickled: bytes, function: object) -> set[str]:
    """Return names of modules in a pickle, and in the processor that Runner has put into it, compressed.

    A pickle names modules in strings; other strings that happen to be module names do no harm.
    """
    names: set[str] = set()
    pickles = [pickled]
    for step in _wrapped(function):
        packed = getattr(step, "keywords", {}).get("processor_instance")
        if isinstance(packed, bytes):
            pickles.append(lz4.frame.decompress(packed))
    for content in pickles:
        for _, argument, _ in pickletools.genops(content):
            if isinstance(argument, str):
                # Functions of a notebook are sent by value, with the names that they import among the strings.
                words = {argument, argument.partition(" ")[0]}
                names.update(w for w in words if w in sys.modules or (w.isidentifier() and is_local(w)))
    return names
