"""The command `ecgbatch`: scores archives of twelve-lead ECG recordings in the background."""

import gc
import os
import sys
from importlib import import_module
from typing import Any

import click

from ecgbatch.commands import command
from ecgbatch.printing import print_note
from ecgbatch.settings import EcgbatchError

ROOMS = {
    "ecgbatch.producer.cli": ("run", "enqueue", "status", "failures", "retry", "cancel"),
    "ecgbatch.worker.cli": ("worker", "flower", "reconcile", "doctor"),
    "ecgbatch.db.cli": ("query", "export", "metrics", "db"),
    "ecgbatch.viewer.cli": ("score", "plot", "explain", "report", "app"),
    "ecgbatch.models.cli": ("model",),
    "ecgbatch.cli": ("completion",),
}
"""Which room's `cli.py` has which commands, in the order of `ecgbatch --help`. Their heavier parts import what they
need when they run."""

EPILOG = """\b
Exit status: 0 all scored; 3 finished, with failures; 2 wrong usage; 1 could not do it.
Settings come from the environment (ECGBATCH_...); docs/reference.md lists them.
For research use only, never for diagnosis.
"""
COMPLETES = "_ECGBATCH_COMPLETE"
"""The variable by which a shell asks for completions."""
STATUS_INTERRUPTED = 130
OBJECTS_PER_COLLECTION = 50_000
"""What is imported makes 90,000 objects that stay: to look through them again and again took a fourth of the time."""


class Interrupted(Exception):
    """The user has pressed Ctrl-C."""


class Commands(click.Group):
    """The commands of all rooms; a room's file is imported when one of its commands is looked at."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in ROOMS.values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for room, names in ROOMS.items():
            if cmd_name in names:
                found: click.Command = getattr(import_module(room), cmd_name)
                return found
        return None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # for which click would write an empty line first
            raise Interrupted from None


@click.group(cls=Commands, epilog=EPILOG)
@click.version_option(package_name="ecgbatch", prog_name="ecgbatch", message="%(prog)s %(version)s")
def ecgbatch() -> None:
    """Scores archives of twelve-lead ECG recordings with a parallel xLSTM, in the background."""


@command(example="ecgbatch completion bash")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), help="Whose completion.")
def completion(shell: str) -> None:
    """Print what lets a shell complete commands and options.

    To have it in every shell: `eval "$(ecgbatch completion bash)"` in ~/.bashrc, the same with zsh in ~/.zshrc, and
    `ecgbatch completion fish | source` in ~/.config/fish/config.fish.
    """
    from click.shell_completion import get_completion_class

    complete = get_completion_class(shell)
    assert complete is not None
    print(complete(ecgbatch, {}, "ecgbatch", COMPLETES).source())


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit status; errors that a user can act on are one line."""
    gc.set_threshold(OBJECTS_PER_COLLECTION)
    try:
        return _run(arguments)
    finally:
        gc.freeze()  # so that the interpreter does not look through them at its end


def _run(arguments: list[str] | None) -> int:
    try:
        status: int | None = ecgbatch.main(arguments, "ecgbatch", COMPLETES, standalone_mode=False)
        sys.stdout.flush()
    except EcgbatchError as error:
        return _fail(str(error), 1)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "ecgbatch"
        return _fail(f"{error.format_message()} See: {path} --help", error.exit_code)
    except Interrupted:
        return _fail("interrupted", STATUS_INTERRUPTED)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        return _fail("this needs torch: pip install 'ecgbatch[torch]'", 1)
    except BrokenPipeError:  # the reader, `head` perhaps, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status or 0


def _fail(message: str, status: int) -> int:
    print_note(f"ecgbatch: {message}")
    return status
