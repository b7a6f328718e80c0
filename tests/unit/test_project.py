"""What holds for the project as a whole: help of every command, settings, and what is imported when."""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Command
from places import REPOSITORY

from ecgbatch.cli import make_parser
from ecgbatch.settings import EcgbatchError, load

REFERENCE = (REPOSITORY / "docs/reference.md").read_text()


def commands(parser: argparse.ArgumentParser, path: str = "") -> Iterator[tuple[str, argparse.ArgumentParser, str]]:
    """Every command with its parser and its line of help."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, sub in action.choices.items():
                yield f"{path}{name}", sub, helps.get(name, "")
                yield from commands(sub, f"{path}{name} ")


COMMANDS = list(commands(make_parser()))


@pytest.mark.parametrize(("name", "parser", "line"), COMMANDS, ids=[name for name, _, _ in COMMANDS])
def test_every_command_says_what_it_does(name: str, parser: argparse.ArgumentParser, line: str) -> None:
    assert line, f"{name} has no line of help"
    assert parser.description
    for action in parser._actions:
        assert action.help or isinstance(action, argparse._SubParsersAction), f"{name} {action.dest} has no help"
    assert parser.format_help()


@pytest.mark.parametrize("name", [name for name, parser, _ in COMMANDS if parser.get_default("run")])
def test_every_command_is_in_the_reference(name: str) -> None:
    assert f"`{name}" in REFERENCE


def test_settings_come_from_the_environment() -> None:
    given = load({"ECGBATCH_PROCESSES": "3", "ECGBATCH_MODEL_DIR": "/m", "ECGBATCH_MODEL": "", "PATH": "x"})
    assert (given.processes, given.model_dir, given.model) == (3, Path("/m"), None)
    with pytest.raises(EcgbatchError, match="ECGBATCH_PROCESSES"):
        load({"ECGBATCH_PROCESSES": "-1"})


@pytest.mark.parametrize("arguments", ["status", "query superclasses", "enqueue archive"])
def test_who_only_enqueues_or_queries_needs_no_torch(services: Command, archive: Path, arguments: str) -> None:
    script = (
        "import sys; from ecgbatch.cli import main; status = main(sys.argv[1:]);"
        "print(sorted({'torch', 'wfdb', 'scipy', 'pandas'} & set(sys.modules)), status)"
    )
    line = [sys.executable, "-c", script, *arguments.split()]
    done = subprocess.run(line, cwd=services.folder, env=services.environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[] 0", done.stderr
