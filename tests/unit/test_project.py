"""What holds for the project as a whole: help of every command, and what is imported when."""

import ast
import shlex
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from commands import Command as RunCommand
from places import REPOSITORY

from ecgbatch.cli import ecgbatch
from ecgbatch.commands import Command

REFERENCE = (REPOSITORY / "docs/reference.md").read_text()


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command by its full name, groups included."""
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None, f"{path}{name} is listed and not there"
        yield f"{path}{name}", found
        if isinstance(found, click.Group):
            yield from commands(found, f"{path}{name} ")


COMMANDS = dict(commands(ecgbatch))
RUNNABLE = {name: found for name, found in COMMANDS.items() if not isinstance(found, click.Group)}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_does(name: str) -> None:
    line = COMMANDS[name].get_short_help_str(limit=200)
    assert line.endswith(".")
    assert len(line) <= 65, "is cut short in the list of commands"
    for parameter in COMMANDS[name].params:
        assert getattr(parameter, "help", None), f"{name} {parameter.name} has no help"


@pytest.mark.parametrize("name", RUNNABLE)
def test_every_command_has_an_example_that_is_right_usage(name: str) -> None:
    found = RUNNABLE[name]
    assert isinstance(found, Command)
    assert found.example in found.get_help(click.Context(found))
    for line in found.example.splitlines():
        assert line.startswith(f"ecgbatch {name}")
        found.make_context(name, shlex.split(line.removeprefix(f"ecgbatch {name}"), comments=True))


def test_help_imports_nothing_heavy() -> None:
    script = "import sys; from ecgbatch.cli import main; main(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "enqueue" in done.stdout
    loaded = set(ast.literal_eval(done.stderr))
    assert not loaded & {"numpy", "sqlalchemy", "celery", "kombu", "redis", "alembic", "rich", "importlib.metadata"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_how_to_complete(command: RunCommand, shell: str) -> None:
    assert "_ECGBATCH_COMPLETE" in command("completion", shell).stdout


def test_commands_and_options_complete(command: RunCommand) -> None:
    command.environment |= {"_ECGBATCH_COMPLETE": "bash_complete", "COMP_WORDS": "ecgbatch st", "COMP_CWORD": "1"}
    assert command().stdout.splitlines() == ["plain,status"]
    command.environment |= {"COMP_WORDS": "ecgbatch run --prior", "COMP_CWORD": "2"}
    assert command().stdout.splitlines() == ["plain,--priority"]


@pytest.mark.parametrize("name", RUNNABLE)
def test_every_command_is_in_the_reference(name: str) -> None:
    assert f"`{name}" in REFERENCE


def test_no_file_is_too_long_to_be_read_at_once() -> None:
    """Tables of numbers excepted, of which there are none as long as that."""
    folders = [path for path in REPOSITORY.iterdir() if path.is_dir() and path.name[0] != "." and path.name != "build"]
    files = [path for folder in folders for kind in ("py", "cpp", "h") for path in folder.rglob(f"*.{kind}")]
    assert len(files) > 100
    long = {path.name: lines for path in files if (lines := path.read_bytes().count(b"\n")) > 450}
    assert long == {}
