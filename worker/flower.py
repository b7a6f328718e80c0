"""Flower, which shows workers and chunks in the browser."""

import secrets

from celery import Celery
from kombu.utils.url import parse_url

from ecgbatch.printing import say
from ecgbatch.settings import EcgbatchError, Settings

USER = "ecgbatch"
COLUMNS = "args,state,result,received,started,runtime,worker,uuid"
MOST_TASKS = 100_000
SAVE_MILLISECONDS = 60_000


def run_flower(app: Celery, settings: Settings) -> None:
    """Serves Flower until it is told to end, always behind a password: whoever reaches it can control the workers.

    Raises EcgbatchError for a password that Flower cannot compare.
    """
    from flower.options import options

    options.basic_auth = [f"{USER}:{_password(settings)}"]  # the command line would split it at its commas
    arguments = {
        "address": settings.flower_address,
        "port": settings.flower_port,
        "tasks-columns": COLUMNS,
        "max-tasks": MOST_TASKS,
        "read-only": settings.flower_read_only,
    }
    if settings.flower_url_prefix is not None:
        arguments["url-prefix"] = settings.flower_url_prefix.strip("/")
    if settings.flower_database is not None:
        arguments |= {"persistent": True, "db": settings.flower_database, "state-save-interval": SAVE_MILLISECONDS}
    if settings.redis_url is not None and settings.redis_url.startswith("rediss://"):
        app.conf.broker_use_ssl = parse_url(settings.redis_url)["ssl"]  # its own connections do not read the URL's
    app.start(["flower", *(f"--{name}={value}" for name, value in arguments.items())])


def _password(settings: Settings) -> str:
    """The password that is set, or one made up, which is shown: there is no other way to learn it."""
    prefix = "" if settings.flower_url_prefix is None else f"/{settings.flower_url_prefix.strip('/')}/"
    where = f"Flower: http://{settings.flower_address}:{settings.flower_port}{prefix} user {USER}"
    given = settings.flower_password
    if given is None:
        made_up = secrets.token_urlsafe(12)
        say(f"{where}, password {made_up}")
        return made_up
    if not given.isascii():
        raise EcgbatchError("Flower cannot take this password: choose one of ASCII characters")
    say(f"{where}, the password that is set")
    return given
