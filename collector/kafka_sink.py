"""The sink on Kafka: the offsets are in the files, the group only shares the partitions out.

On an assignment it seeks to where the newest file says; after a lost race it does so again. What
retention has deleted before it was stored is booked as lost, which is an alarm of the audit.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from collector.chain import remove_torn
from collector.kafka import FAILURES, Consumer, Record, ensure_topic
from collector.partition import Flushed, Partition
from understudy.config import Config, Kafka
from understudy.errors import LakeError
from understudy.lake import Lake
from understudy.spool import parse

log = logging.getLogger(__name__)
_POLL_MS = 200
_RECORDS_AT_ONCE = 2000
_RETRY_S = 2.0
_PROBE_EVERY_S = 5.0


class KafkaSink:
    """Kafka -> Parquet. `stop` ends `run`, which flushes before it returns."""

    def __init__(
        self, config: Config, kafka: Kafka, lake: Lake, *, flush_s: float | None = None
    ) -> None:
        self._config, self._kafka, self._lake = config, kafka, lake
        self._flush_s = config.collector.flush_s if flush_s is None else flush_s
        self._partitions: dict[int, Partition] = {}
        self._consumer: Consumer | None = None
        self._stopping = self._away = self._failing = False
        self._probed = 0.0

    def stop(self) -> None:
        """Ask `run` to flush and return; safe in a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Work until `stop`."""
        asyncio.run(self._run(once=False))

    def run_once(self) -> None:
        """Store what the topic holds now, and return."""
        asyncio.run(self._run(once=True))

    async def _run(self, once: bool) -> None:
        remove_torn(self._lake)
        while not self._stopping:
            try:
                await self._session(once)
            except FAILURES as error:
                self._complain(error)
                await asyncio.sleep(_RETRY_S)
            else:
                return

    async def _session(self, once: bool) -> None:
        count = await ensure_topic(self._kafka)
        self._consumer = Consumer(self._kafka, self._open, self._revoke, group=not once)
        try:
            await self._consumer.start(count)
            self._answered()
            if once:
                await self._drain(self._consumer, count)
            else:
                await self._follow(self._consumer)
            await self._flush(self._consumer, lambda _: True)
        finally:
            await self._consumer.close()
            self._partitions.clear()

    async def _follow(self, consumer: Consumer) -> None:
        while not self._stopping:
            if not await self._take(consumer):
                await self._probe(consumer)
            await self._flush(consumer, lambda partition: partition.due)

    async def _drain(self, consumer: Consumer, count: int) -> None:
        ends = await consumer.ends(range(count))
        while any(self._partitions[n].next_offset < end for n, end in ends.items()):
            await self._take(consumer)
            await self._flush(consumer, lambda partition: partition.full)

    async def _take(self, consumer: Consumer) -> int:
        batches = await consumer.poll(_POLL_MS, _RECORDS_AT_ONCE)
        for number, records in batches.items():
            partition = self._partitions.get(number)
            for record in records if partition else ():
                assert partition
                self._take_record(partition, record)
        return len(batches)

    def _take_record(self, partition: Partition, record: Record) -> None:
        if record.offset < partition.next_offset:
            return
        value = self._lake.get(f"blobs/{record.blob}") if record.blob else record.value
        frame = parse(value or b"")
        if frame is None or frame.size != len(value or b""):
            log.error("%s: offset %d holds no frame", partition.name, record.offset)
            partition.skip(record.offset)
        else:
            partition.take(record.offset, record.spool_id, frame)

    async def _flush(self, consumer: Consumer, wanted: Callable[[Partition], bool]) -> None:
        """Flush what wants it; a lake that cannot be written stops the reading, not the process."""
        for number, partition in list(self._partitions.items()):
            while wanted(partition) and self._partitions.get(number) is partition:
                try:
                    result = partition.flush()
                except LakeError as error:
                    await self._wait_for_lake(error)
                    continue
                self._failing = False
                if result is Flushed.LOST_RACE:
                    self._partitions[number] = self._partition(number)
                    consumer.seek(number, self._partitions[number].next_offset)
                elif result is Flushed.STORED:
                    await self._commit(consumer, number, partition.safe_offset)
                break

    async def _wait_for_lake(self, error: LakeError) -> None:
        if self._stopping:
            raise error
        if not self._failing:
            log.error("%s; nothing is lost, Kafka keeps it; trying on", error)
        self._failing = True
        await asyncio.sleep(_RETRY_S)

    async def _commit(self, consumer: Consumer, number: int, offset: int) -> None:
        try:
            await consumer.commit(number, offset)
        except FAILURES as error:  # only lag metrics read it
            log.debug("commit of partition %d: %s", number, error)

    def _partition(self, number: int) -> Partition:
        settings = self._config.collector
        return Partition(
            self._lake,
            f"kafka-{number}",
            self._config.prices,
            flush_rows=settings.flush_rows,
            flush_s=self._flush_s,
            stale_s=settings.stream_timeout_s,
        )

    def _open(self, number: int, log_start: int, log_end: int) -> int:
        """Where to read partition `number` from, by the newest file."""
        partition = self._partition(number)
        if partition.next_offset > log_end:
            raise LakeError(
                f"topic {self._kafka.topic}, partition {number} ends at {log_end}, the lake is at "
                f"{partition.next_offset}: the topic was made anew; name another `kafka.topic` "
                "and another lake"
            )
        if partition.next_offset < log_start:
            log.error(
                "%s: offsets %d-%d are gone by retention; their frames are lost",
                partition.name,
                partition.next_offset,
                log_start - 1,
            )
            partition.jump(log_start)
        self._partitions[number] = partition
        log.info("%s: ours, from offset %d of %d", partition.name, partition.next_offset, log_end)
        return min(partition.next_offset, log_end)

    def _revoke(self, number: int) -> None:
        partition = self._partitions.pop(number, None)
        if partition:
            log.info("%s: goes to another sink", partition.name)
            try:
                partition.flush()
            except LakeError as error:  # whoever has the partition next reads it again
                log.warning("%s", error)

    async def _probe(self, consumer: Consumer) -> None:
        """Silence may be an outage: ask, and say so once."""
        if time.monotonic() - self._probed < _PROBE_EVERY_S:
            return
        self._probed = time.monotonic()
        try:
            await consumer.ends(self._partitions)
            self._answered()
        except FAILURES as error:
            self._complain(error)

    def _answered(self) -> None:
        if self._away:
            log.info("Kafka at %s answers again", self._kafka.bootstrap_servers)
        self._away = False

    def _complain(self, error: BaseException) -> None:
        if not self._away:
            log.warning(
                "Kafka at %s does not answer (%s); trying on",
                self._kafka.bootstrap_servers,
                error or type(error).__name__,
            )
        self._away = True
