"""What holds for the project as a whole: help and documentation of every command, and which room uses which."""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from commands import Command
from places import REPOSITORY

from ecgbatch.cli import make_parser
from ecgbatch.records.recording import Reason
from ecgbatch.settings import EcgbatchError, Settings, load, variable

README = (REPOSITORY / "README.md").read_text()


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
def test_every_command_is_in_the_readme(name: str) -> None:
    assert f"`{name}" in README


def test_every_setting_is_in_the_readme_as_it_is() -> None:
    for setting in fields(Settings):
        default = "unset" if setting.default is None else f"`{str(setting.default).replace(str(Path.home()), '~')}`"
        assert f"| `{variable(setting.name)}` | {default} | {setting.metadata['meaning']} |" in README


def test_every_reason_of_failure_is_in_the_readme_as_it_is() -> None:
    for reason in Reason:
        assert f"| `{reason}` | {reason.meaning} |" in README


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
