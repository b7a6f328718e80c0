"""What scores. `celery -A ecgbatch.worker inspect active` asks the workers of the settings' database."""

from typing import Any


def __getattr__(name: str) -> Any:
    """The Celery app of the settings in force, made when Celery's own command asks for it."""
    if name != "app":
        raise AttributeError(name)
    from ecgbatch.db.migrate import open_database
    from ecgbatch.settings import load
    from ecgbatch.worker.app import connected_app

    settings = load()
    return connected_app(settings, open_database(settings.database_url))
