"""Writes docs/commands.md and docs/configuration.md from the code: run it when a command or a key of a file changes.

python scripts/reference.py
"""

import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from pydantic import BaseModel, ByteSize
from pydantic_core import PydanticUndefined

from cafetal import analysis_models, config, storage_models
from cafetal.cli import cli
from cafetal.endpoints import batch_models, container_model, endpoint_models
from cafetal.views import stacks, workspaces

DOCS = Path(__file__).parents[1] / "docs"

COMMANDS = """# Commands

`cafetal [--debug] COMMAND`. Exit code 0: success; after `run` and `resume`, all events are in the output, or
`--accept` or `--skip-bad-files` allows the missing ones. 1: an error, or a check that failed. 2: wrong usage.
130: interrupted. `--debug` shows tracebacks of Cafetal's own code.

PROCESSOR is `path/to/file.py:Class` or `package.module:Class`. `:Class` may be left out if there is only one. A
function of events is a processor too. A file in a package is imported as part of that package, any other file as a
script. FILESET is a file in Cafetal's or coffea's format. FOLDER is the folder given as `-o`.

Ctrl-C once: each task ends after its current chunk. The finished chunks are merged and saved, the output is marked
incomplete, and `cafetal resume` continues. Twice: stop now. SIGTERM and SIGHUP do the same.
"""

CONFIGURATION = """# Configuration files

All files are YAML. An unknown key is an error, which names the nearest known key. Relative paths of `local`
sites and batch systems are relative to the site table. `~` and `$VARIABLES` in a `pfn` are expanded at the site. Names
of sites consist of letters, digits, `_`, `.` and `-`.
"""

SECTIONS = [
    ("The site table", "`config/sites.yaml`, or the file given as `--sites`.", config.SiteTable),
    ("A site", "Under `sites`, by its name.", config.Site),
    ("`endpoint: local`", "", endpoint_models.LocalEndpoint),
    ("`endpoint: {kind: slurm}`", "", batch_models.SlurmEndpoint),
    ("`endpoint: {kind: htcondor}`", "", batch_models.HTCondorEndpoint),
    ("`endpoint: {kind: pbspro}`", "", batch_models.PBSProEndpoint),
    ("`endpoint: {kind: lsf}`", "", batch_models.LSFEndpoint),
    ("`endpoint: {kind: grid_engine}`", "", batch_models.GridEngineEndpoint),
    ("`endpoint: {kind: kubernetes}`", "", batch_models.KubernetesEndpoint),
    ("`endpoint: {kind: globus_compute}`", "", endpoint_models.GlobusEndpoint),
    ("`endpoint: {kind: parsl}`", "", endpoint_models.ParslEndpoint),
    ("`container`", "A key of the endpoints of batch systems.", container_model.Container),
    ("`storage`", "By the name of the element.", storage_models.StorageElement),
    ("`credentials` of a site", "", storage_models.Logins),
    ("`collection` of a site", "", storage_models.Collection),
    ("`routing`", "", config.Routing),
    ("`reading`", "", config.Reading),
    ("`results_cache`", "", analysis_models.ResultsCache),
    ("`environment`", "", analysis_models.Environment),
    (
        "`code`",
        "See [Send your code with the analysis](guides/send-your-code-with-the-analysis.md).",
        analysis_models.Code,
    ),
    ("Plots", "Read by `cafetal plot --config`: under `plots`, by the name of the histogram.", stacks.Stack),
    ("Workspaces", "Read by `cafetal export`.", workspaces.Statistics),
    ("A channel", "Under `channels` of a workspace, by its name.", workspaces.Channel),
]


def commands() -> str:
    """All commands, with what they take."""
    return COMMANDS + "".join(_command(command, name) for name, command in _walk(cli, "cafetal"))


def _walk(group: click.Group, path: str) -> typing.Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from _walk(command, f"{path} {name}")


def _command(command: click.Command, path: str) -> str:
    usage = " ".join(command.collect_usage_pieces(click.Context(command, info_name=path)))
    told = " ".join((command.help or "").split())
    rows = [_option(each) for each in command.params if isinstance(each, click.Option)]
    table = "\n| option | meaning | default |\n|---|---|---|\n" + "".join(rows) if rows else ""
    examples = [line.strip() for line in (command.epilog or "").splitlines()[2:]]
    code = "\n```bash\n" + "\n".join(examples) + "\n```\n"
    return f"\n## `{path}`\n\n`{path} {usage}`\n\n{told}\n{code}{table}"


def _option(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    if not option.is_flag:
        names += f" {option.make_metavar(click.Context(click.Command('x')))}"
    silent = option.is_flag or option.default is None or option.multiple or "UNSET" in repr(option.default).upper()
    default = "" if silent else f"`{option.default}`"
    told = option.help or ""
    if option.multiple and "repeatable" not in told:
        told += " Repeatable."
    if option.required:
        told += " Required."
    return f"| {_cell(names)} | {_cell(told)} | {default} |\n"


def configuration() -> str:
    """All files of configuration, key by key."""
    return CONFIGURATION + "".join(_section(*each) for each in SECTIONS)


def _section(title: str, where: str, model: type[BaseModel]) -> str:
    told = " ".join((model.__doc__ or "").split())
    rows = "".join(_field(name, field) for name, field in model.model_fields.items())
    head = "\n| key | takes | meaning | default |\n|---|---|---|---|\n"
    return f"\n## {title}\n\n{told}{' ' if where else ''}{where}\n{head}{rows}"


def _field(name: str, field: Any) -> str:
    if name == "kind":
        return ""
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined:
        shown = "required"
    elif default in (None, "", ()) or default == {} or isinstance(default, BaseModel):
        shown = ""
    else:
        shown = f"`{str(default).lower() if isinstance(default, bool) else default}`"
    return f"| `{name}` | {_cell(_kind(field.annotation))} | {_cell(field.description or '')} | {shown} |\n"


def _kind(annotation: Any) -> str:
    """In a user's words."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{each}`" for each in parts)
    if origin is Annotated:
        return _kind(parts[0])
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_kind(each) for each in parts if each is not type(None)))
    if origin in (dict, typing.Mapping) or (origin and issubclass(origin, typing.Mapping)):
        return f"mapping to {_kind(parts[1])}" if len(parts) == 2 else "mapping"
    if origin in (tuple, list):
        return f"list of {_kind(parts[0])}"
    if isinstance(annotation, type) and issubclass(annotation, ByteSize):
        return "bytes"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "see below"
    return {"str": "text", "int": "integer", "float": "number", "bool": "true or false", "UUID": "UUID"}.get(
        getattr(annotation, "__name__", ""), "anything"
    )


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


PAGES = {"commands.md": commands, "configuration.md": configuration}

if __name__ == "__main__":
    for page, write in PAGES.items():
        (DOCS / page).write_text(write())
