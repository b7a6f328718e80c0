"""The command `ecgbatch`: scores archives of twelve-lead ECG recordings in the background."""

import argparse
import os
import sys
from importlib.metadata import version

import ecgbatch.db.cli
import ecgbatch.models.cli
import ecgbatch.producer.cli
import ecgbatch.worker.cli
from ecgbatch.printing import remark
from ecgbatch.settings import EcgbatchError

EPILOG = """\
Exit status: 0 all scored; 3 finished, with failures; 2 wrong usage; 1 could not do it.
Settings come from the environment (ECGBATCH_...); docs/reference.md lists them.
For research use only, never for diagnosis.
"""


def make_parser() -> argparse.ArgumentParser:
    """The whole command line; each room adds its verbs."""
    parser = argparse.ArgumentParser(
        prog="ecgbatch",
        description="Scores archives of twelve-lead ECG recordings with a parallel xLSTM, in the background.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ecgbatch {version('ecgbatch')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for room in (ecgbatch.producer.cli, ecgbatch.worker.cli, ecgbatch.db.cli, ecgbatch.models.cli):
        room.register(commands)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit status; errors that a user can act on are one line."""
    args = make_parser().parse_args(arguments)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except EcgbatchError as error:
        remark(f"ecgbatch: {error}")
        return 1
    except KeyboardInterrupt:
        print("ecgbatch: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, `head` perhaps, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status
