"""The commands as a whole: each takes what it declares, and says what it does."""

import inspect

import click
import pytest

from cafetal.cli import cli


def commands(group=cli, path="cafetal"):
    for name, command in group.commands.items():
        yield pytest.param(command, id=f"{path} {name}")
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")


@pytest.mark.parametrize("command", list(commands()))
def test_a_command_takes_what_it_declares(command):
    parameters = inspect.signature(command.callback).parameters
    declared = {option.name for option in command.params}
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        assert declared == parameters.keys() - {"context"}
    named = {name for name, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD}
    assert named - {"context"} <= declared
    assert command.help
