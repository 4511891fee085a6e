"""Spool -> Kafka, crash-only: every session begins at the cursors on disk.

A cursor covers the contiguous prefix of acknowledged frames and is synced before a segment goes.
With brokers away nothing is held but the spool; one log line per outage, and it goes on by itself.
"""

import asyncio
import hashlib
import logging
import time
import zlib
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

from collector.crash import crash_point
from collector.embedded import remove_half_made
from collector.kafka import FAILURES, MAX_MESSAGE, Producer, ensure_topic
from understudy.config import Config, Kafka
from understudy.errors import SpoolError
from understudy.lake import Lake
from understudy.spool import (
    Cursor,
    Frame,
    SpoolReader,
    follow,
    lost,
    release,
    remove,
    spools,
    to_bytes,
)

log = logging.getLogger(__name__)
_IDLE_S = 0.05
_RETRY_S = 1.0
_CURSOR_EVERY_S = 0.5
_MAX_IN_FLIGHT = 4000
_FRAMES_AT_ONCE = 500
_OUTAGE_S = 5.0
_DRAIN_S = 10.0


class _Sent(NamedTuple):
    """A frame in flight, and when it went."""

    seq: int
    at: float
    acknowledged: "asyncio.Future[Any]"


class Channel:
    """One spool on its way to its partition, which is fixed at first sight."""

    def __init__(self, folder: Path, partitions: int, lake: Lake) -> None:
        cursor = Cursor.load(folder)
        number = cursor.partition
        if number is None:
            number = zlib.crc32(folder.name.encode()) % partitions
        self.folder, self.partition, self._lake = folder, number, lake
        self._reader = SpoolReader(folder, cursor.seq)
        self._saved = cursor.seq
        self._acknowledged = cursor.seq
        self._unsaved_since = time.monotonic()
        self._in_flight: deque[_Sent] = deque()
        self._elsewhere = cursor.seq if cursor.target not in ("", "kafka") else 0

    async def send(self, producer: Producer) -> int:
        """Send what is there and was not sent; returns how many frames that were."""
        if len(self._in_flight) >= _MAX_IN_FLIGHT:
            return 0
        frames = follow(self._reader, _FRAMES_AT_ONCE)
        if self._elsewhere and frames:
            said = "stored without Kafka"
            frames = [lost(0, self._elsewhere - 1, said, stored_elsewhere=True), *frames]
            self._elsewhere = 0
        for frame in frames:
            sent = await self._send(producer, frame)
            self._in_flight.append(_Sent(frame.seq, time.monotonic(), sent))
        return len(frames)

    async def _send(self, producer: Producer, frame: Frame) -> "asyncio.Future[Any]":
        value = to_bytes(frame)
        if len(value) <= MAX_MESSAGE:
            return await producer.send(self.partition, self.folder.name, value)
        name = hashlib.sha256(value).hexdigest()
        self._lake.put_if_absent(f"blobs/{name}", value)
        return await producer.send(self.partition, self.folder.name, b"", blob=name)

    def settle(self) -> bool:
        """Note what was acknowledged; True when all of a closed spool is and the folder is gone."""
        while self._in_flight and self._in_flight[0].acknowledged.done():
            # An error ends the session: what follows must not overtake.
            self._in_flight.popleft().acknowledged.result()
            behind = self._in_flight[0].seq if self._in_flight else self._reader.next_seq
            self._acknowledged = max(self._acknowledged, behind)
        due = time.monotonic() - self._unsaved_since >= _CURSOR_EVERY_S
        finished = self._reader.closed and not self._in_flight
        if self._acknowledged > self._saved and (due or finished):
            self.save()
        if finished:
            crash_point("before-remove")
            remove(self.folder)
        return finished

    def save(self) -> None:
        """Make the cursor durable, then unlink what lies below it."""
        crash_point("before-cursor")
        Cursor(self._acknowledged, "kafka", self.partition).save(self.folder)
        crash_point("after-cursor")
        release(self.folder, self._acknowledged)
        self._saved, self._unsaved_since = self._acknowledged, time.monotonic()

    @property
    def waits_s(self) -> float:
        """How long the oldest frame in flight has waited for its acknowledgement."""
        return time.monotonic() - self._in_flight[0].at if self._in_flight else 0.0

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight."""
        return not self._in_flight


class Shipper:
    """All spools of this host. `stop` ends `run`, which saves its cursors before it returns."""

    def __init__(self, config: Config, kafka: Kafka, lake: Lake) -> None:
        self._root, self._kafka, self._lake = config.spool.path, kafka, lake
        self._stopping = self._away = False

    def stop(self) -> None:
        """Ask `run` to end; safe in a signal handler."""
        self._stopping = True

    async def run(self, *, once: bool = False) -> None:
        """Ship until `stop`; with `once` until the spools that are there are drained."""
        remove_half_made(self._root)
        while not self._stopping:
            try:
                await self._session(once)
            except FAILURES as error:
                self._complain(str(error) or type(error).__name__)
                await asyncio.sleep(_RETRY_S)
            else:
                return

    async def _session(self, once: bool) -> None:
        partitions = await ensure_topic(self._kafka)
        producer = Producer(self._kafka)
        try:
            await producer.start()
            log.info("shipping to %s, topic %s", self._kafka.bootstrap_servers, self._kafka.topic)
            await self._ship(producer, partitions, once)
        finally:
            await producer.close()

    async def _ship(self, producer: Producer, partitions: int, once: bool) -> None:
        channels: dict[Path, Channel] = {}
        while not self._stopping:
            sent = 0
            for folder in spools(self._root):
                if folder not in channels:
                    channels[folder] = Channel(folder, partitions, self._lake)
                sent += await self._serve(channels, folder, producer)
            self._watch(max((channel.waits_s for channel in channels.values()), default=0.0))
            if once and not sent and all(channel.idle for channel in channels.values()):
                break
            await asyncio.sleep(0 if sent else _IDLE_S)
        await self._drain(channels)

    def _watch(self, waits_s: float) -> None:
        """One line when acknowledgements stop coming, one when they come again."""
        if waits_s > _OUTAGE_S:
            self._complain(f"no acknowledgement for {waits_s:.0f} s")
        elif self._away:
            log.info("Kafka at %s answers again", self._kafka.bootstrap_servers)
            self._away = False

    def _complain(self, problem: str) -> None:
        if not self._away:
            log.warning(
                "Kafka at %s does not answer (%s); the spool keeps everything, trying on",
                self._kafka.bootstrap_servers,
                problem,
            )
        self._away = True

    async def _serve(self, channels: dict[Path, Channel], folder: Path, producer: Producer) -> int:
        try:
            sent = await channels[folder].send(producer)
        except SpoolError as error:
            log.error("%s", error)
            return 0
        if channels[folder].settle():
            del channels[folder]
        return sent

    async def _drain(self, channels: dict[Path, Channel]) -> None:
        deadline = time.monotonic() + _DRAIN_S
        while time.monotonic() < deadline and not all(c.idle for c in channels.values()):
            await asyncio.sleep(_IDLE_S)
            for folder, channel in list(channels.items()):
                if channel.settle():
                    del channels[folder]
        for channel in channels.values():
            channel.save()
