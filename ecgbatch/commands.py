"""What the commands of all rooms are made with: the example in each one's help, and the options that many have."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

if_leads_are_missing = click.option(
    "--leads-missing",
    type=click.Choice(["refuse", "score"]),
    default="refuse",
    show_default=True,
    help="Score: by as few leads as the model is declared for, flagged `leads_missing`.",
)


class Command(click.Command):
    """A command whose help ends with an example that can be typed as it stands."""

    def __init__(self, *args: Any, example: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Example"):
            for line in self.example.splitlines():
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


def command(
    name: str | None = None, *, example: str, group: click.Group | None = None
) -> Callable[[Callable[..., Any]], click.Command]:
    """Makes a function a command, of a group if one is given; its docstring's first line is its line of help."""
    make = click.command if group is None else group.command
    return make(name, cls=Command, example=example)


def of_a_record(function: F) -> F:
    """How a record is scored: its age and sex (0 male, 1 female) where the file is not to be asked, and the model."""
    options = (
        click.option("--age", type=click.FloatRange(0, 120), metavar="YEARS", help="Default: as the file tells it."),
        click.option(
            "--sex",
            type=click.Choice(["male", "female"]),
            callback=lambda _context, _option, text: None if text is None else ["male", "female"].index(text),
            help="Default: as the file tells it.",
        ),
        click.option("--model", "wanted", metavar="NAME[:VERSION]", help="The model; default: ECGBATCH_MODEL."),
        if_leads_are_missing,
    )
    for option in reversed(options):
        function = option(function)
    return function


def columns_by_role(text: str | None) -> dict[str, str]:
    """What --columns takes, `path=filename,age=years`, by role. Raises click.BadParameter for anything else."""
    pairs = [pair.partition("=")[::2] for pair in text.split(",")] if text else []
    if not all(role.strip() and name.strip() for role, name in pairs):
        raise click.BadParameter(f"{text!r} is not of the form path=NAME,age=NAME")
    return {role.strip(): name.strip() for role, name in pairs}
