"""Kombu's Redis transport, which believes nothing that it finds in Redis.

Whoever can write to Redis can put anything into its lists. Of a message that asks for a chunk only three values are
taken, and the rest is made anew; what is no message, too large or compressed is dropped with one line in the log.
"""

import functools
import json
import logging
from base64 import b64decode, b64encode
from collections.abc import Callable
from queue import Empty
from types import NoneType
from typing import Any, TypeVar
from uuid import uuid4

import kombu.connection
from kombu.transport import redis
from redis.exceptions import ConnectionError, ResponseError

from ecgbatch.db.terms import Priority
from ecgbatch.printing import first_line
from ecgbatch.worker.message import TASK, ChunkMessage

log = logging.getLogger(__name__)

QUEUES = frozenset(Priority)
LARGEST_MESSAGE = 1 << 20
"""Bytes. Ours have some hundred; what workers tell Flower of themselves has some thousand."""
LONGEST_TITLE = 200
PLAIN = ("application/json", "utf-8")

T = TypeVar("T")


def trusted(message: object, queue: str) -> dict[str, Any] | None:
    """The message as we would have sent it; None if it asks for no chunk."""
    if not isinstance(message, dict):
        return None
    try:
        headers = message["headers"]
        _, kwargs, _ = json.loads(b64decode(message["body"], validate=True))
        asked, task_id, title = ChunkMessage(**kwargs), headers["id"], headers.get("argsrepr")
        is_ours = headers["task"] == TASK and asked.is_valid() and 0 < len(task_id) <= LONGEST_TITLE
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return None
    if not is_ours or not isinstance(task_id, str):
        return None
    if not isinstance(title, str) or len(title) > LONGEST_TITLE or not title.isprintable():
        title = f"job {asked.job_id}, chunk {asked.number}"
    return _envelope(asked, task_id, title, queue)


def _envelope(asked: ChunkMessage, task_id: str, title: str, queue: str) -> dict[str, Any]:
    """A message of Celery's protocol, version 2."""
    embedded = dict.fromkeys(("callbacks", "errbacks", "chain", "chord"))
    body = json.dumps([[], vars(asked), embedded])
    nothing = dict.fromkeys(("eta", "expires", "group", "parent_id", "shadow", "meth"))
    return {
        "body": b64encode(body.encode()).decode(),
        "content-type": PLAIN[0],
        "content-encoding": PLAIN[1],
        "headers": nothing
        | {"lang": "py", "task": TASK, "id": task_id, "root_id": task_id, "argsrepr": title, "kwargsrepr": "{}"}
        | {"retries": 0, "timelimit": [None, None], "ignore_result": True},
        "properties": {
            "correlation_id": task_id,
            "delivery_mode": 2,
            "delivery_info": {"exchange": queue, "routing_key": queue},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid4()),
        },
    }


def is_plain(message: object) -> bool:
    """Whether a message that asks for no chunk, but for what a worker is doing, can be decoded without harm."""
    if not isinstance(message, dict):
        return False
    try:
        properties, headers = message["properties"], message.get("headers") or {}
        return (
            isinstance(properties["delivery_tag"], str)
            and isinstance(properties.get("delivery_info", {}), dict)
            and isinstance(message["body"], str)
            and isinstance(headers, dict)
            and "compression" not in headers
            and (message["content-type"], message["content-encoding"].lower()) == PLAIN
        )
    except (AttributeError, KeyError, TypeError):
        return False


def is_question(message: object) -> bool:
    """Whether a plain message is one of remote control."""
    if not isinstance(message, dict) or not is_plain(message):
        return False
    try:
        asked = json.loads(b64decode(message["body"], validate=True))
    except (RecursionError, ValueError):
        return False
    return isinstance(asked, dict) and all(
        isinstance(asked.get(name), kinds)
        for name, kinds in {
            "method": (str,),
            "arguments": (dict, NoneType),
            "destination": (list, NoneType),
            "pattern": (str, NoneType),
            "matcher": (str, NoneType),
            "reply_to": (dict, NoneType),
            "ticket": (str, NoneType),
        }.items()
    )


class BoundedRedis(redis.PrefixedStrictRedis):
    """A client that passes no message on that is too large."""

    def parse_response(self, connection: Any, command_name: str, **options: Any) -> Any:
        answer = super().parse_response(connection, command_name, **options)
        if command_name == "BRPOP" and answer and len(answer[1]) > LARGEST_MESSAGE:
            return answer[0], b"null"
        return answer


class QoS(redis.QoS):
    """Keeps messages until they are acknowledged."""

    channel: "Channel"

    def append(self, message: Any, delivery_tag: str) -> None:
        self.channel.in_our_place(lambda: super(QoS, self).append(message, delivery_tag))

    def ack(self, delivery_tag: str) -> None:
        self.channel.in_our_place(lambda: super(QoS, self).ack(delivery_tag))

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        self.channel.in_our_place(lambda: super(QoS, self).reject(delivery_tag, requeue))

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        self.channel.in_our_place(lambda: super(QoS, self).restore_visible(*args, **kwargs))

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        try:
            super().restore_by_tag(tag, client, leftmost)
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
            _say_dropped("unacknowledged messages")
            self._remove_from_indices(tag).execute()


class Channel(redis.Channel):
    """Reads lists and channels; what cannot be understood is dropped, and the next is read."""

    QoS = QoS

    def _get_client(self) -> Callable[..., Any]:
        return functools.partial(BoundedRedis, global_keyprefix=self.global_keyprefix)

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        """Of a connection that Celery has given up there are none, and an AttributeError would end the worker."""
        if self.connection is None or self.connection.client is None:
            raise ConnectionError("the connection was given up")
        found: dict[str, Any] = super()._connparams(asynchronous)
        return found

    def _lookup(self, exchange: str, routing_key: str, default: str | None = None) -> list[str]:
        """Our queues are where they are, whatever the table of bindings in Redis says."""
        if exchange in QUEUES:
            return [exchange]
        found: list[str] = super()._lookup(exchange, routing_key, default)
        return found

    def _size(self, queue: str) -> int:
        return self.in_our_place(lambda: int(super(Channel, self)._size(queue)))

    def _put(self, queue: str, message: Any, **options: Any) -> None:
        self.in_our_place(lambda: super(Channel, self)._put(queue, message, **options))

    def _queue_bind(self, *args: Any) -> None:
        self.in_our_place(lambda: super(Channel, self)._queue_bind(*args))

    def in_our_place(self, work: Callable[[], T]) -> T:
        """What `work` returns; Redis refuses it where somebody has put something else in the place of our keys."""
        try:
            return work()
        except ResponseError:
            if not self._delete_what_is_not_ours():
                raise
            return work()

    def _delete_what_is_not_ours(self) -> bool:
        """Whether there was any."""
        deleted = False
        kinds = {self.unacked_key: b"hash", self.unacked_index_key: b"zset"} | dict.fromkeys(QUEUES, b"list")
        for table in (self.keyprefix_queue, self.keyprefix_binding_permanent):
            kinds |= {table % queue: b"set" for queue in QUEUES}
        with self.conn_or_acquire() as client:
            for key, kind in kinds.items():
                if client.type(f"{self.global_keyprefix}{key}") not in (kind, b"none"):
                    log.warning("what was found in Redis in the place of %s is deleted", key)
                    client.delete(key)
                    deleted = True
        return deleted

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return self._or_drop(lambda: super(Channel, self)._brpop_read(**options), "a queue")
        except ResponseError:
            if not self._delete_what_is_not_ours():
                raise
            raise Empty from None

    def _receive_one(self, c: Any) -> Any:
        try:
            return self._or_drop(lambda: super(Channel, self)._receive_one(c), "remote control")
        except ResponseError as error:  # work goes on without
            log.warning("Redis allows no remote control: %s", first_line(error))
            raise Empty from None

    def _or_drop(self, read: Callable[[], T], where: str) -> T:
        try:
            return read()
        except (Empty, ResponseError, *self.connection_errors):
            raise
        except Exception:  # whatever a decoder makes of what anybody may have written
            _say_dropped(where)
            raise Empty from None

    def _do_restore_message(
        self, payload: object, exchange: str, routing_key: str, pipe: Any, leftmost: bool = False
    ) -> None:
        if exchange in QUEUES and (message := trusted(payload, exchange)):
            super()._do_restore_message(message, exchange, routing_key, pipe, leftmost)
        else:
            _say_dropped("unacknowledged messages")


class Transport(redis.Transport):
    """Delivers what can be trusted."""

    Channel = Channel

    def _deliver(self, message: object, queue: str) -> None:
        if queue in QUEUES:
            message = trusted(message, queue)
        elif not (is_question(message) if _is_asked_through(queue) else is_plain(message)):
            message = None
        if message is None:
            _say_dropped(queue)
        else:
            super()._deliver(message, queue)


class Connection(kombu.connection.Connection):
    """A connection by this transport, whatever the form of its URL."""

    def get_transport_cls(self) -> type[Transport]:
        return Transport

    def Pool(self, limit: int | None = None, **options: Any) -> kombu.connection.ConnectionPool:  # noqa: N802
        return ConnectionPool(self, limit, **options)


class PooledConnection(Connection, kombu.connection.PooledConnection):
    """One of a pool."""


class ConnectionPool(kombu.connection.ConnectionPool):
    """Kombu's own makes connections of kombu's own kind."""

    def new(self) -> PooledConnection:
        return PooledConnection(self, **dict(self.connection._info(resolve=False)))


def _is_asked_through(queue: str) -> bool:
    """Whether remote control asks workers through this queue; their answers come through others."""
    return queue.endswith(".celery.pidbox") and not queue.endswith(".reply.celery.pidbox")


def _say_dropped(where: str) -> None:
    log.warning("dropped a message from %s in Redis that ecgbatch has not sent", where)
