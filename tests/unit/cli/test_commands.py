"""The commands as a whole: each takes what it declares, says what it does, and shows an example that works."""

import inspect
import io
import os
import re
import shlex
import shutil
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

from cafetal.cli import cli, options
from cafetal.cli.group import SECTIONS

COLUMNS, ROWS = 80, 40


def walk(group=cli, path=()):
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from walk(command, (*path, name))


COMMANDS = [pytest.param(path, command, id=" ".join(path)) for path, command in walk()]


def help_of(path):
    result = CliRunner().invoke(cli, [*path, "--help"], terminal_width=COLUMNS)
    assert result.exit_code == 0
    return result.output.splitlines()


@pytest.mark.parametrize(("path", "command"), COMMANDS)
def test_a_command_takes_what_it_declares(path, command):
    parameters = inspect.signature(command.callback).parameters
    declared = {option.name for option in command.params}
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        assert declared == parameters.keys() - {"context"}
    named = {name for name, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD}
    assert named - {"context"} <= declared


def test_every_command_is_in_one_section():
    listed = [command.name for commands in SECTIONS.values() for command in commands]
    assert sorted(listed) == sorted(cli.commands)
    text = help_of(())
    assert [line.rstrip(":") for line in text if line.rstrip(":") in SECTIONS] == list(SECTIONS)
    assert not any("..." in line for line in text[1:])


@pytest.mark.parametrize(("path", "command"), [pytest.param((), cli, id="cafetal"), *COMMANDS])
def test_help_fits_on_a_screen(path, command):
    lines = help_of(path)
    assert len(lines) <= ROWS
    assert max(map(len, lines)) <= COLUMNS
    assert all(option.help for option in command.params if isinstance(option, click.Option))


@pytest.mark.parametrize(("path", "command"), COMMANDS)
def test_a_command_is_described_and_has_an_example(path, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "all.json").touch()  # which must be there
    assert command.help
    assert 0 < len(command.short_help) <= COLUMNS - 16
    assert command.short_help.endswith(".")
    examples = [line.strip() for line in command.epilog.splitlines()[2:]]
    assert any(example.startswith(" ".join(("cafetal", *path))) or "completion" in example for example in examples)
    for example in examples:
        arguments = shlex.split(example.removeprefix('eval "$(').removesuffix(')"'))
        assert arguments.pop(0) == "cafetal"
        parse(cli, arguments)


def parse(command, arguments):
    """Parse as the shell's words would be, and run nothing."""
    if isinstance(command, click.Group) and arguments:
        parse(command.commands[arguments[0]], arguments[1:])
    else:
        command.make_context(command.name, list(arguments))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell):
    script = CliRunner().invoke(cli, ["completion", shell])
    assert script.exit_code == 0
    assert "_CAFETAL_COMPLETE" in script.output
    if shutil.which(shell):
        checked = subprocess.run([shell, "-n"], input=script.output, text=True, capture_output=True, check=False)
        assert checked.returncode == 0, checked.stderr
    environment = {
        "_CAFETAL_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": "cafetal run pro",
        "COMP_CWORD": "2" if shell == "bash" else "pro" if shell == "fish" else "2",
    }
    completed = CliRunner().invoke(cli, env=environment, prog_name="cafetal")
    assert "file" in completed.output


def test_colours_can_be_turned_off(tmp_path):
    """By NO_COLOR (https://no-color.org), also where FORCE_COLOR asks for them."""

    def doctor(**more):
        environment = {**os.environ, "FORCE_COLOR": "1", **more}
        command = [sys.executable, "-m", "cafetal.cli", "doctor"]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True).stdout

    assert "\x1b[32mok" in doctor()
    plain = doctor(NO_COLOR="1")
    assert "ok" in plain
    assert not re.search(r"\x1b\[\d*;?3\dm", plain)


@pytest.mark.parametrize(("terminal", "quiet"), [(True, False), (True, True), (False, False)])
def test_a_terminal_shows_what_a_command_does(monkeypatch, terminal, quiet):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=80)
    monkeypatch.setattr(options, "ERRORS", console)
    with options.phase("drawing 12 histograms", quiet=quiet):
        pass
    assert ("drawing 12 histograms ..." in console.file.getvalue()) is (terminal and not quiet)
