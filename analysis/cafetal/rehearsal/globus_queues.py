"""The message side of the stand-in: queues for endpoints, results and reports, on a RabbitMQ broker."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pika
import pika.exceptions
from pika.adapters.blocking_connection import BlockingChannel

logger = logging.getLogger(__name__)

RESULTS, HEARTBEATS, TASKS, COMMANDS = "results", "heartbeats", "tasks", "commands"
PREFIX = "results_"
"""Of the queues from which clients take the results of a task group."""
_LASTING = 2
"""AMQP's delivery mode for messages that survive a restart of the broker."""
T = TypeVar("T")


class CloudQueues:
    """One connection that publishes, one thread that takes what endpoints send.

    Args:
        url: of the broker.
        on_result, on_report: called with the body of a message, in the thread of this object.
    """

    def __init__(self, url: str, on_result: Callable[[bytes], None], on_report: Callable[[bytes], None]) -> None:
        self.url = url
        self._takers = {RESULTS: on_result, HEARTBEATS: on_report}
        self._lock = threading.RLock()
        self._connection: pika.BlockingConnection | None = None
        self._with(self._declare)
        threading.Thread(target=self._take, daemon=True, name="taker").start()

    @staticmethod
    def _declare(channel: BlockingChannel) -> None:
        for name in (RESULTS, HEARTBEATS):
            channel.exchange_declare(name, "topic", durable=True)
            channel.queue_declare(name, durable=True)
            channel.queue_bind(name, name, f"*.{name}")
        for name in (TASKS, COMMANDS):
            channel.exchange_declare(name, "direct", durable=True)

    def _connect(self) -> pika.BlockingConnection:
        parameters = pika.URLParameters(self.url)
        parameters.heartbeat = 0  # a publisher that only speaks now and then would have to answer them
        return pika.BlockingConnection(parameters)

    def _with(self, act: Callable[[BlockingChannel], T]) -> T:
        """Do something on a fresh channel; once more if the connection turns out to be dead."""
        with self._lock:
            for last in (False, True):
                try:
                    if self._connection is None or self._connection.is_closed:
                        self._connection = self._connect()
                    channel = self._connection.channel()
                    try:
                        return act(channel)
                    finally:
                        if channel.is_open:
                            channel.close()
                except (pika.exceptions.AMQPError, OSError):
                    self._connection = None
                    if last:
                        raise
        raise AssertionError

    def declare_queue(self, name: str, exchange: str | None = None, life: float | None = None) -> None:
        """Make a lasting queue, bound to an exchange under its own name; messages stay in it for ``life`` seconds."""
        arguments = None if life is None else {"x-message-ttl": int(life * 1000)}

        def act(channel: BlockingChannel) -> None:
            channel.queue_declare(name, durable=True, arguments=arguments)
            if exchange:
                channel.queue_bind(name, exchange, name)

        self._with(act)

    def publish(self, exchange: str, key: str, messages: Sequence[tuple[bytes, dict[str, Any]]]) -> None:
        """Send bodies with their properties; all of them, or an error."""

        def act(channel: BlockingChannel) -> None:
            channel.confirm_delivery()
            for body, properties in messages:
                channel.basic_publish(exchange, key, body, pika.BasicProperties(delivery_mode=_LASTING, **properties))

        self._with(act)

    def endpoint_queue(self, kind: str, endpoint: str) -> dict[str, object]:
        """Return what an endpoint must know of one of its queues; the queue is made if it is its own."""
        queue: dict[str, Any] = {"connection_url": self.url, "exchange": kind}
        if kind in (RESULTS, HEARTBEATS):
            queue["queue"] = kind
            queue["queue_publish_kwargs"] = {
                "exchange": kind,
                "routing_key": f"{endpoint}.{kind}",
                "mandatory": True,
                "properties": {"delivery_mode": _LASTING},
            }
        else:
            queue["queue"] = f"{endpoint}.{kind}"
            self.declare_queue(queue["queue"], kind)
        return queue

    def _take(self) -> None:
        while True:
            try:
                channel = self._connect().channel()
                channel.basic_qos(prefetch_count=256)
                for name in self._takers:
                    channel.basic_consume(name, self._taken)
                channel.start_consuming()
            except Exception as error:  # the broker restarts; what it holds comes later
                logger.warning("connection to the broker lost: %r", error)
                time.sleep(1)

    def _taken(self, channel: Any, method: Any, properties: object, body: bytes) -> None:
        kind = HEARTBEATS if method.exchange == HEARTBEATS else RESULTS
        try:
            self._takers[kind](body)
        except pika.exceptions.AMQPError:
            raise  # not acknowledged, so it comes again
        except Exception:
            logger.exception("malformed message: %s", body[:200])
        channel.basic_ack(method.delivery_tag)
