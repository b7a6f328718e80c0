"""The Celery app: how work travels through Redis. SQL is the truth; Redis only carries messages."""

from importlib import import_module
from types import ModuleType
from typing import Any

from celery import Celery
from celery.app.amqp import AMQP
from celery.loaders.app import AppLoader
from kombu.entity import Exchange, Queue
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError, ResponseError

from ecgbatch import urls
from ecgbatch.db.engine import Database
from ecgbatch.db.identity import identity_of
from ecgbatch.db.terms import Priority
from ecgbatch.printing import first_line
from ecgbatch.settings import EcgbatchError, Settings
from ecgbatch.worker.transport import Connection

REDIS_ERRORS = (OSError, OperationalError, RedisError)
ANSWER_SECONDS = 5
"""How long a server may take to answer that it is there."""


class Loader(AppLoader):
    """Celery's own puts the folder that the user stands in before all others, with its numpy.py or redis.py."""

    def import_from_cwd(self, module: str, imp: Any = None, package: str | None = None) -> ModuleType:
        return import_module(module, package)


class Protocol(AMQP):
    """Celery's own, over connections that believe nothing that they find in Redis."""

    Connection = Connection


class App(Celery):
    """A Celery app whose Redis server is the one of its settings, whatever Celery's own variables say."""

    amqp_cls = Protocol
    backend_cls = "disabled"
    loader_cls = Loader

    def _connection(self, url: str, **options: Any) -> Any:
        return super()._connection(self.conf.ecgbatch_settings.redis_url, **options)


def make_app(settings: Settings, identity: str, **context: Any) -> Celery:
    """The Celery app of these settings for the database of this identity; it connects when it is first used.

    All that it keeps in Redis is under the identity: queues, unacknowledged messages, events, remote control. `context`
    travels with the app's configuration into the worker's processes.
    """
    app = App("ecgbatch", include=["ecgbatch.worker.tasks"])
    app.conf.update(
        ecgbatch_settings=settings,
        ecgbatch_identity=identity,
        **context,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_acks_on_failure_or_timeout=True,  # what was not stored is found by its lease, not by its message
        task_queues=[Queue(name, Exchange(name), routing_key=name) for name in Priority],
        task_default_queue=Priority.NORMAL,
        task_create_missing_queues=False,
        task_time_limit=settings.chunk_seconds,
        task_send_sent_event=True,
        task_publish_retry_policy={"max_retries": 3, "interval_start": 0.1},
        worker_prefetch_multiplier=1,
        worker_pool="prefork",
        worker_pool_start_method="spawn",
        worker_proc_alive_timeout=300,
        worker_send_task_events=True,
        worker_hijack_root_logger=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_consumer="ecgbatch.worker.consumer:Consumer",
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,  # a server that refuses, full or read-only, is away like one that is silent
        broker_transport_options={
            "global_keyprefix": key_prefix(identity),
            "queue_order_strategy": "priority",
            "visibility_timeout": 1800,
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 15,
        },
    )
    return app


def key_prefix(identity: str) -> str:
    """What the names of all keys in Redis begin with."""
    return f"ecgbatch.{identity}."


def connected_app(settings: Settings, database: Database, **context: Any) -> Celery:
    """The app of a database and a Redis server that answers; raises EcgbatchError when none is set or it does not."""
    if settings.redis_url is None:
        raise EcgbatchError(
            "ECGBATCH_REDIS_URL is not set: give redis://HOST:6379, or use `ecgbatch run`, which needs none"
        )
    app = make_app(settings, identity_of(database), **context)
    ping(app)
    return app


def ping(app: Celery) -> None:
    """Raises EcgbatchError when the app's Redis server does not answer, or is none that carries messages."""
    url = urls.without_secrets(app.conf.ecgbatch_settings.redis_url)
    try:
        options = app.conf.broker_transport_options | {"socket_timeout": ANSWER_SECONDS}
        with app.connection_for_write(connect_timeout=ANSWER_SECONDS, transport_options=options) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0.1)
            client = connection.default_channel.client
            client.ping()
            mode = _mode(client)
    except (ValueError, KeyError, TypeError, *REDIS_ERRORS) as error:
        raise EcgbatchError(
            f"no Redis server answers at {url} ({first_line(error)}); start it, or set ECGBATCH_REDIS_URL"
        ) from None
    if mode != "standalone":
        raise EcgbatchError(f"the Redis server at {url} is a {mode}: give one that is by itself, or its primary one")


def _mode(client: Any) -> str:
    """What kind of server it is: standalone, cluster or sentinel; who may not ask will see."""
    try:
        return str(client.info("server").get("redis_mode", "standalone"))
    except ResponseError:
        return "standalone"
