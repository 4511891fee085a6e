"""What the spool holds, in which order, and what it never holds."""

import asyncio
import itertools
import json
import random
import threading
from pathlib import Path

import pytest

from tests.proxy.origin import (
    CHAT,
    DONE,
    SSE_HEAD,
    STREAM,
    Line,
    Origin,
    Received,
    chunk_event,
    chunked,
    sized,
)
from tests.proxy.running import Client, Proxy, ask, chat, post, wait_for
from understudy.spool import FrameType, decode_body


def test_request_is_logged_before_the_upstream_is_called_and_response_before_the_last_byte(
    tmp_path: Path,
) -> None:
    seen: list[list[FrameType]] = []

    async def answer(request: Received, line: Line) -> None:
        seen.append([f.type for f in proxy.frames()])
        await line.send(sized(CHAT))

    with Origin(answer) as origin, Proxy(tmp_path, teacher=origin.url) as proxy:
        ask(proxy.port, post(chat()))
        after = [f.type for f in proxy.frames()]
    assert seen == [[FrameType.REQUEST]]
    assert after == [FrameType.REQUEST, FrameType.RESPONSE]
    assert proxy.frames()[-1].type is FrameType.CLOSE


@pytest.mark.parametrize("fsync", ["os", "group", "always"])
def test_every_fsync_policy_serves_and_records(tmp_path: Path, fsync: str) -> None:
    capture = {"fsync": fsync}
    with Origin() as origin, Proxy(tmp_path, teacher=origin.url, capture=capture) as proxy:
        with Client(proxy.port) as client:
            for stream in (False, True, False):
                client.send(post(chat(stream=stream)))
                assert client.reply().body == (STREAM if stream else CHAT)
        assert [a.end for a in proxy.attempts()] == [FrameType.RESPONSE] * 3


@pytest.mark.parametrize("policy", ["cancel", "finish"])
@pytest.mark.parametrize("when", ["before", "stalled", "flowing", "sized"])
def test_client_that_leaves_is_recorded_and_the_upstream_obeys_the_policy(
    tmp_path: Path, policy: str, when: str
) -> None:
    go = asyncio.Event()

    async def answer(request: Received, line: Line) -> None:
        if when == "before":
            await go.wait()
        if when == "sized":
            await line.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(CHAT), CHAT[:9])
            await go.wait()
            await line.send(CHAT[9:])
            return
        await line.send(SSE_HEAD, chunked(chunk_event("a")))
        if when == "stalled":
            await go.wait()
        for _ in range(10):
            await line.send(chunked(chunk_event("b")), pause_s=0.02)
        await line.send(chunked(DONE) + b"0\r\n\r\n")

    with Origin(answer) as origin:
        rules = {"w": {"on_client_abort": policy}}
        with Proxy(tmp_path, teacher=origin.url, workloads=rules) as proxy:
            with Client(proxy.port) as client:
                client.send(post(chat(stream=when != "sized")))
                if when != "before":
                    client.head()
                else:
                    wait_for(lambda: bool(origin.requests))
            wait_for(lambda: proxy.server.server_state.connections == set())
            origin._loop.call_soon_threadsafe(go.set)
            [attempt] = proxy.ended()
            if policy == "cancel":
                wait_for(lambda: origin.closed == 1)
    assert attempt.response is not None
    assert attempt.response["outcome"] == "client_abort"
    assert attempt.end is FrameType.ABORT
    if policy == "finish":
        whole = CHAT if when == "sized" else chunk_event("a") + chunk_event("b") * 10 + DONE
        assert attempt.response_body == whole
    if when == "before" and policy == "cancel":
        assert attempt.response["client_left_at_event"] == 0


def test_client_that_leaves_after_the_streams_last_event_has_left_nothing_out(
    tmp_path: Path,
) -> None:
    go = asyncio.Event()

    async def answer(request: Received, line: Line) -> None:
        await line.send(SSE_HEAD, chunked(STREAM))
        await go.wait()

    with Origin(answer) as origin, Proxy(tmp_path, teacher=origin.url) as proxy:
        with Client(proxy.port) as client:
            client.send(post(chat(stream=True)))
            client.head()
            while not client._buffer.endswith(DONE + b"\r\n"):
                client._more()
        [attempt] = proxy.ended()
        origin._loop.call_soon_threadsafe(go.set)
    assert attempt.response is not None
    assert attempt.response["outcome"] == "complete"
    assert attempt.response_body == STREAM


def test_stream_split_anywhere_gives_the_same_bytes_and_the_same_record(tmp_path: Path) -> None:
    body = b"".join(chunk_event(w) for w in ("H\xc3\xa9", ": ping")) + DONE
    wire = (
        SSE_HEAD + b"".join(chunked(e + b"\n\n") for e in body.split(b"\n\n")[:-1]) + b"0\r\n\r\n"
    )
    cuts = [[at] for at in range(1, len(wire), 3)]
    random.seed(7)
    cuts += [sorted(random.sample(range(1, len(wire)), 12)) for _ in range(20)]
    cuts.append(list(range(1, len(wire))))  # every byte by itself

    async def answer(request: Received, line: Line) -> None:
        at = [0, *json.loads(request.body)["cuts"], len(wire)]
        for a, b in itertools.pairwise(at):
            line.writer.write(wire[a:b])
            await asyncio.sleep(0.0005)

    with Origin(answer) as origin, Proxy(tmp_path, teacher=origin.url) as proxy:
        with Client(proxy.port) as client:
            for cut in cuts:
                client.send(post(chat(stream=True, cuts=cut)))
                assert client.reply().body == body
        attempts = proxy.ended(len(cuts))
    assert {a.response_body for a in attempts} == {body}
    assert {a.response["outcome"] for a in attempts if a.response} == {"complete"}


def test_request_split_at_every_byte_is_the_same_request(tmp_path: Path) -> None:
    request = post(chat(), "/v1/chat/completions", "X-A: b")
    with (
        Origin() as origin,
        Proxy(tmp_path, teacher=origin.url) as proxy,
        Client(proxy.port) as client,
    ):
        for at in range(1, len(request), 5):
            client.send(request[:at])
            client.send(request[at:])
            assert client.reply().body == CHAT
    assert len({(r.line, tuple(r.headers), r.body) for r in origin.requests}) == 1


def test_no_credential_ever_enters_the_spool(tmp_path: Path) -> None:
    secrets = ["sk-canary-AAAA", "azure-canary-BBBB", "anthropic-canary-CCCC", "cookie-canary-DDDD"]
    headers = (
        f"Authorization: Bearer {secrets[0]}", f"api-key: {secrets[1]}",
        f"x-api-key: {secrets[2]}", f"Cookie: session={secrets[3]}",
    )  # fmt: skip
    with Origin() as origin, Proxy(tmp_path, teacher=origin.url) as proxy:
        for path in ("/v1/chat/completions", "/v1/files", "/v1/embeddings"):
            ask(proxy.port, post(chat(), path + "?key=query-canary-EEEE", *headers))
        proxy.ended(3)
        spool = proxy.spool_bytes()
        status = ask(proxy.port, b"GET /understudy/v1/status HTTP/1.1\r\n\r\n").body
        metrics = ask(proxy.port, b"GET /metrics HTTP/1.1\r\n\r\n").body
    for secret in [*secrets, "query-canary-EEEE"]:
        assert secret.encode() not in spool + status + metrics
    assert proxy.attempts()[0].request["key_hash"]


def test_people_and_conversations_are_keyed_hashes_and_stable(tmp_path: Path) -> None:
    with Origin() as origin, Proxy(tmp_path, teacher=origin.url) as proxy:
        for text, user in (("a", "ann"), ("a", "ann"), ("b", "bob")):
            ask(proxy.port, post(chat(text, user=user)))
        follow = json.loads(chat("a", user="ann"))
        follow["messages"] += [
            {"role": "assistant", "content": "x"},
            {"role": "user", "content": "y"},
        ]
        ask(proxy.port, post(json.dumps(follow).encode()))
        one, two, three, later = [a.request for a in proxy.ended(4)]
    assert one["user_hash"] == two["user_hash"] != three["user_hash"]
    assert one["conversation_key"] == two["conversation_key"] == later["conversation_key"]
    assert one["conversation_key"] != three["conversation_key"]
    assert one["prompt_hash"] == three["prompt_hash"]
    assert b"ann" not in json.dumps([one, two]).encode()


@pytest.mark.parametrize(
    ("level", "header", "frames", "kept"),
    [
        ("full", None, 2, True),
        ("full", "metadata", 2, False),
        ("full", "off", 0, False),
        ("metadata", "full", 2, False),
        ("off", None, 0, False),
    ],
)
def test_a_request_may_only_tighten_what_is_kept(
    tmp_path: Path, level: str, header: str | None, frames: int, kept: bool
) -> None:
    headers = [f"x-understudy-capture: {header}"] if header else []
    with Origin() as origin, Proxy(tmp_path, teacher=origin.url, capture={"level": level}) as proxy:
        reply = ask(proxy.port, post(chat("the-content"), "/v1/chat/completions", *headers))
        assert reply.body == CHAT
        assert len(proxy.frames()) == frames
        assert (b"the-content" in proxy.spool_bytes()) == kept
        assert (b"hello" in proxy.spool_bytes()) == kept


@pytest.mark.parametrize("when_full", ["reject", "pass_unlogged"])
def test_full_spool_is_the_operators_decision(tmp_path: Path, when_full: str) -> None:
    capture = {"when_full": when_full}
    with Origin() as origin, Proxy(tmp_path, teacher=origin.url, capture=capture) as proxy:
        writer = proxy.site.capture.spool
        writer._max_bytes, writer._until_check = 0, 0  # as if the cap was reached
        replies = [ask(proxy.port, post(chat())) for _ in range(4)]
        writer._max_bytes = 1 << 30
        wait_for(lambda: ask(proxy.port, post(chat())).status == 200 and proxy.frames() != [])
        counts = proxy.site.capture.counts
        gaps = [
            json.loads(decode_body(f.body)[0]) for f in proxy.frames() if f.type is FrameType.GAP
        ]
    refused = [r for r in replies if r.status == 503]
    assert counts.offered == counts.stored + counts.refused + counts.unlogged + counts.failed
    if when_full == "reject":
        assert len(refused) >= 3
        assert refused[0].header("retry-after") == "5"
        assert refused[0].json["error"]["code"] == "log_full"
        assert counts.refused >= len(refused)
        assert gaps == []
    else:
        assert refused == []
        assert [g["count"] for g in gaps] == [counts.unlogged]


def test_feedback_is_in_the_spool_before_its_2xx(tmp_path: Path) -> None:
    with Origin() as origin, Proxy(tmp_path, teacher=origin.url) as proxy:
        body = b'{"response_id":"chatcmpl-1","score":0.5,"label":"bad","correction":"{}"}'
        reply = ask(proxy.port, post(body, "/understudy/v1/feedback"))
        [frame] = [f for f in proxy.frames() if f.type is FrameType.FEEDBACK]
        assert reply.status == 200
        meta = json.loads(decode_body(frame.body)[0])
        assert meta["feedback_id"] == reply.json["feedback_id"]
        assert (meta["response_id"], meta["score"], meta["label"]) == ("chatcmpl-1", 0.5, "bad")
        for wrong in (
            b"{}",
            b'{"exchange_id":"x"}',
            b'{"score":1}',
            b"not json",
            b'{"exchange_id":"x","scor":1}',
        ):
            answer = ask(proxy.port, post(wrong, "/understudy/v1/feedback"))
            assert answer.status == 422
            assert answer.json["error"]["type"] == "invalid_request_error"
        assert ask(proxy.port, b"GET /understudy/nothing HTTP/1.1\r\n\r\n").status == 404


def test_many_clients_at_once_lose_nothing(tmp_path: Path) -> None:
    with Origin() as origin, Proxy(tmp_path, teacher=origin.url) as proxy:

        def load(number: int) -> None:
            with Client(proxy.port) as client:
                for i in range(25):
                    stream = (i + number) % 3 == 0
                    client.send(post(chat(f"{number}-{i}", stream=stream)))
                    assert client.reply().body == (STREAM if stream else CHAT)

        threads = [threading.Thread(target=load, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        attempts = proxy.ended(200)
        counts = proxy.site.capture.counts
    assert len(attempts) == counts.offered == counts.stored == 200
    assert len({a.request_body for a in attempts}) == 200
    assert all(a.end is FrameType.RESPONSE for a in attempts)
