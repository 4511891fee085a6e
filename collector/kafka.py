"""aiokafka, and nothing of it elsewhere: a topic, a producer and a consumer set up for a log.

No transactions, no auto-commit, acks from all replicas; large batches in zstd. With brokers down
aiokafka accepts about a batch per partition and then raises, and its `stop` may hang: it is no
buffer (the spool is), and `close` waits for it for a few seconds only.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

from aiokafka import (
    AIOKafkaConsumer,
    AIOKafkaProducer,
    ConsumerRebalanceListener,
    TopicPartition,
)
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, NoOffsetForPartitionError, TopicAlreadyExistsError

from understudy.config import Kafka
from understudy.errors import UnderstudyError

FAILURES = (KafkaError, OSError, asyncio.TimeoutError)
MAX_MESSAGE = 7 << 20  # a longer frame travels as a blob in the lake
_MAX_REQUEST = 8 << 20
_TIMEOUT_MS = 10_000
_CLOSE_S = 3.0
_GROUP = "understudy-sink"
_RETENTION_MS = 7 * 86_400_000

logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a line per retry; we log per outage


class Record(NamedTuple):
    """A message of the log: whose frame at which offset; `blob` names it where it was too long."""

    offset: int
    spool_id: str
    value: bytes
    blob: str | None


async def ensure_topic(kafka: Kafka) -> int:
    """Create the topic where it is missing; returns how many partitions it has."""
    admin = AIOKafkaAdminClient(
        bootstrap_servers=kafka.bootstrap_servers, request_timeout_ms=_TIMEOUT_MS
    )
    try:
        await asyncio.wait_for(admin.start(), _TIMEOUT_MS / 1000)
        if kafka.topic not in await admin.list_topics():
            await _create(admin, kafka)
        (found,) = await admin.describe_topics([kafka.topic])
        return len(found["partitions"])
    finally:
        await _close(admin.close())


async def _create(admin: AIOKafkaAdminClient, kafka: Kafka) -> None:
    settings = {
        "max.message.bytes": str(_MAX_REQUEST),
        "retention.ms": str(_RETENTION_MS),
        "min.insync.replicas": "2" if kafka.replication > 2 else "1",
        "unclean.leader.election.enable": "false",
    }
    topic = NewTopic(kafka.topic, kafka.partitions, kafka.replication, topic_configs=settings)
    response = await admin.create_topics([topic])
    for error in response.topic_errors:
        if error[1] not in (0, TopicAlreadyExistsError.errno):
            raise KafkaError(f"cannot create topic {kafka.topic}: {error[2] or error[1]}")


class Producer:
    """Sends to one topic. `send` gives a future that is done when the brokers have it."""

    def __init__(self, kafka: Kafka) -> None:
        self._topic = kafka.topic
        self._producer = AIOKafkaProducer(
            bootstrap_servers=kafka.bootstrap_servers,
            acks="all",
            enable_idempotence=True,
            compression_type="zstd",
            linger_ms=30,
            max_batch_size=256 << 10,
            max_request_size=_MAX_REQUEST,
            request_timeout_ms=_TIMEOUT_MS,
        )

    async def start(self) -> None:
        """Connect; one of FAILURES if the brokers are away."""
        await asyncio.wait_for(self._producer.start(), _TIMEOUT_MS / 1000)

    async def send(
        self, partition: int, key: str, value: bytes, blob: str | None = None
    ) -> "asyncio.Future[Any]":
        """Hand a message over; waits while the buffer is full."""
        headers = [("blob", blob.encode())] if blob else None
        sent: asyncio.Future[Any] = await asyncio.wait_for(
            self._producer.send(
                self._topic, value, key=key.encode(), partition=partition, headers=headers
            ),
            2 * _TIMEOUT_MS / 1000,
        )
        return sent

    async def close(self) -> None:
        """Flush and disconnect, or give up after a few seconds."""
        await _close(self._producer.stop())


class Consumer(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Reads one topic from offsets that its owner names.

    `assigned(partition, log_start, log_end)` answers with the offset to begin at; `revoked` is told
    before a partition goes. With `group=False` it takes all partitions for itself.
    """

    def __init__(
        self,
        kafka: Kafka,
        assigned: Callable[[int, int, int], int],
        revoked: Callable[[int], None],
        *,
        group: bool,
    ) -> None:
        self._topic, self._assigned, self._revoked = kafka.topic, assigned, revoked
        self._group = group
        self._failed: Exception | None = None
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=kafka.bootstrap_servers,
            group_id=_GROUP if group else None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            max_partition_fetch_bytes=_MAX_REQUEST,
            fetch_max_bytes=64 << 20,
            request_timeout_ms=4 * _TIMEOUT_MS,
            session_timeout_ms=15_000,
            max_poll_interval_ms=600_000,
        )

    async def start(self, partitions: int) -> None:
        """Connect and join the group, or take all partitions."""
        if self._group:
            self._consumer.subscribe([self._topic], listener=self)
        await asyncio.wait_for(self._consumer.start(), 6 * _TIMEOUT_MS / 1000)
        if not self._group:
            every = [TopicPartition(self._topic, number) for number in range(partitions)]
            self._consumer.assign(every)
            await self._begin(every)

    async def poll(self, timeout_ms: int, max_records: int) -> dict[int, list[Record]]:
        """What has arrived, by partition."""
        if self._failed:
            raise self._failed
        try:
            found = await self._consumer.getmany(timeout_ms=timeout_ms, max_records=max_records)
        except NoOffsetForPartitionError:
            return {}  # nothing is committed; where to begin comes by `seek`, in a moment
        return {where.partition: [_record(m) for m in batch] for where, batch in found.items()}

    async def ends(self, partitions: Iterable[int]) -> dict[int, int]:
        """The partitions' log ends; also a probe whether the brokers are there."""
        wanted = [TopicPartition(self._topic, number) for number in partitions]
        ends = await asyncio.wait_for(self._consumer.end_offsets(wanted), _TIMEOUT_MS / 1000)
        return {where.partition: offset for where, offset in ends.items()}

    def seek(self, partition: int, offset: int) -> None:
        """Read on from `offset`."""
        self._consumer.seek(TopicPartition(self._topic, partition), offset)

    async def commit(self, partition: int, offset: int) -> None:
        """Tell the group where we are: only lag metrics read it, so failure is no matter."""
        if self._group:
            position = {TopicPartition(self._topic, partition): offset}
            await asyncio.wait_for(self._consumer.commit(position), 1.0)

    async def close(self) -> None:
        """Leave the group and disconnect, or give up after a few seconds."""
        await _close(self._consumer.stop())

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """aiokafka's callback: ask the owner where each partition begins.

        aiokafka swallows what a callback raises, and would then never read: `poll` raises it.
        """
        try:
            await self._begin(list(assigned))
        except (*FAILURES, UnderstudyError) as error:
            self._failed = error

    async def _begin(self, wanted: list[TopicPartition]) -> None:
        starts = await self._consumer.beginning_offsets(wanted)
        ends = await self._consumer.end_offsets(wanted)
        for where in wanted:
            offset = self._assigned(where.partition, starts[where], ends[where])
            self._consumer.seek(where, offset)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """aiokafka's callback."""
        for where in revoked:
            self._revoked(where.partition)


def _record(message: Any) -> Record:
    blob = next((value.decode() for name, value in message.headers if name == "blob"), None)
    return Record(message.offset, (message.key or b"").decode(), message.value or b"", blob)


async def _close(closing: Awaitable[None]) -> None:
    task = asyncio.ensure_future(closing)
    done, _ = await asyncio.wait({task}, timeout=_CLOSE_S)
    for finished in done:
        finished.exception()  # it is gone either way
    task.cancel()
