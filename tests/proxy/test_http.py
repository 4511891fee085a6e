"""HTTP as a relay has to speak it, against an upstream that sends whatever bytes a test wants."""

import asyncio
import gzip
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
    chunked,
    read_body,
    sized,
)
from tests.proxy.running import Client, Proxy, ask, chat, post, wait_for


def test_sized_answer_leaves_byte_for_byte_with_our_headers_added(tmp_path: Path) -> None:
    extra = b"X-Request-Id: r-1\r\nx-ratelimit-remaining-tokens: 7\r\nOpenAI-Processing-MS: 3\r\n"

    async def answer(request: Received, line: Line) -> None:
        await line.send(
            sized(CHAT, extra=extra + b"Keep-Alive: timeout=5\r\nConnection: keep-alive\r\n")
        )

    with Origin(answer) as origin, Proxy(tmp_path, teacher=origin.url) as proxy:
        reply = ask(proxy.port, post(chat()))
        [attempt] = proxy.ended()
    assert reply.status == 200
    assert reply.body == CHAT
    assert extra.decode() in reply.raw.decode() + "\r\n"
    assert reply.header("keep-alive") is None
    assert reply.header("connection") is None
    assert reply.header("x-understudy-arm") == "teacher"
    assert reply.header("x-understudy-model") == "gpt-4o"
    assert reply.header("x-understudy-exchange-id") == attempt.request["exchange_id"]
    assert attempt.response_body == CHAT
    assert attempt.request_body == chat()
    assert attempt.response is not None
    assert attempt.response["upstream_request_id"] == "r-1"


def test_small_answer_leaves_in_one_write(tmp_path: Path) -> None:
    with (
        Origin() as origin,
        Proxy(tmp_path, teacher=origin.url) as proxy,
        Client(proxy.port) as client,
    ):
        client.send(post(chat()))
        first = client.sock.recv(65536)
    assert first.endswith(CHAT)


def test_request_reaches_the_upstream_untouched_but_for_hop_by_hop_headers(tmp_path: Path) -> None:
    said = b'[{"role":"user","content":"\\u00fc"}]'
    body = b'{ "model":"gpt-4o", "odd_field": [1,  2], "messages":%b }' % said
    headers = (
        "Authorization: Bearer sk-1", "X-Custom: a", "X-Custom: b", "traceparent: 00-1-2-01",
        "Connection: keep-alive, X-Secret-Hop", "X-Secret-Hop: 1", "TE: trailers",
        "x-understudy-user: u1", "Proxy-Authorization: Basic eA==",
    )  # fmt: skip
    with Origin() as origin, Proxy(tmp_path, teacher=origin.url) as proxy:
        ask(proxy.port, post(body, "/v1/chat/completions?a=1&b=%20", *headers))
        [got] = origin.requests
    assert got.line == b"POST /v1/chat/completions?a=1&b=%20 HTTP/1.1"
    assert got.body == body
    names = [name.lower() for name, _ in got.headers]
    assert [v for n, v in got.headers if n == b"X-Custom"] == [b"a", b"b"]
    assert got.header("authorization") == b"Bearer sk-1"
    assert got.header("traceparent") == b"00-1-2-01"
    assert got.header("host") == f"127.0.0.1:{origin.port}".encode()
    assert not {b"connection", b"x-secret-hop", b"te", b"proxy-authorization"} & set(names)
    assert not [name for name in names if name.startswith(b"x-understudy")]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/chat/completions", b"/base/v1/chat/completions"),
        ("/chat/completions", b"/base/v1/chat/completions"),
        ("/v1/models", b"/base/v1/models"),
        ("/models/gpt-4o", b"/base/v1/models/gpt-4o"),
        ("/v1/odd/new?x=1", b"/base/v1/odd/new?x=1"),
        ("/openai/deployments/d/chat/completions?api-version=1",
         b"/openai/deployments/d/chat/completions?api-version=1"),
    ],
)  # fmt: skip
def test_paths_go_below_the_teachers_base(tmp_path: Path, path: str, expected: bytes) -> None:
    with Origin() as origin:
        base = f"http://127.0.0.1:{origin.port}/base/v1/"
        with Proxy(tmp_path, teacher=base) as proxy:
            assert ask(proxy.port, post(chat(), path)).status == 200
    assert origin.requests[0].line.split(b" ")[1] == expected


def test_chunked_stream_keeps_its_bytes(tmp_path: Path) -> None:
    with Origin() as origin, Proxy(tmp_path, teacher=origin.url) as proxy:
        reply = ask(proxy.port, post(chat(stream=True)))
        [attempt] = proxy.ended()
    assert reply.body == STREAM
    assert reply.header("transfer-encoding") == "chunked"
    assert attempt.response_body == STREAM
    assert attempt.response is not None
    assert attempt.response["outcome"] == "complete"
    assert attempt.request["stream"] is True


def test_chunked_request_body_is_accepted_and_sent_on(tmp_path: Path) -> None:
    body = chat("x" * 1000)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    with Origin() as origin, Proxy(tmp_path, teacher=origin.url) as proxy:
        with Client(proxy.port) as client:
            client.send(head + chunked(body[:10]))
            client.send(chunked(body[10:]) + b"0\r\nx-trailer: 1\r\n\r\n")
            assert client.reply().status == 200
        [attempt] = proxy.ended()
    assert origin.requests[0].body == body
    assert attempt.request_body == body


def test_unknown_paths_are_streamed_through_before_the_body_is_complete(tmp_path: Path) -> None:
    got_first = threading.Event()

    async def answer(request: Received, line: Line) -> None:
        size = int(await line.reader.readline(), 16)
        assert await line.reader.readexactly(size + 2) == b"first\r\n"
        got_first.set()
        rest = await read_body(request, line.reader)
        await line.send(sized(b"[%b]" % rest))

    with Origin(answer, lazy=True) as origin, Proxy(tmp_path, teacher=origin.url) as proxy:
        with Client(proxy.port) as client:
            client.send(b"POST /v1/files HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
            client.send(chunked(b"first"))
            assert got_first.wait(10)
            client.send(chunked(b"second") + b"0\r\n\r\n")
            assert client.reply().body == b"[second]"
        [attempt] = proxy.ended()
    assert attempt.request["level"] == "metadata"
    assert attempt.request_body == b""
    assert attempt.response_body == b""


def test_upload_is_held_back_while_the_upstream_reads_nothing(tmp_path: Path) -> None:
    may_read = asyncio.Event()
    total = 24 << 20

    async def answer(request: Received, line: Line) -> None:
        await may_read.wait()
        left = total
        while left:
            left -= len(await line.reader.read(1 << 20))
        await line.send(sized(b"{}"))

    with (
        Origin(answer, lazy=True) as origin,
        Proxy(tmp_path, teacher=origin.url) as proxy,
        Client(proxy.port) as client,
    ):
        client.send(b"POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % total)
        client.sock.settimeout(1.0)
        sent = 0
        block = b"x" * 65536
        try:
            while sent < total:
                sent += client.sock.send(block)
        except TimeoutError:
            pass
        assert sent < total / 2, "the proxy took the whole body into its memory"
        origin._loop.call_soon_threadsafe(may_read.set)
        client.sock.settimeout(20)
        client.send(b"x" * (total - sent))
        assert client.reply().body == b"{}"


def test_answer_is_held_back_while_the_client_reads_nothing(tmp_path: Path) -> None:
    written = 0
    total = 30 << 20

    async def answer(request: Received, line: Line) -> None:
        nonlocal written
        await line.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        while written < total:
            await line.send(b"y" * 65536)
            written += 65536

    with (
        Origin(answer) as origin,
        Proxy(tmp_path, teacher=origin.url) as proxy,
        Client(proxy.port) as client,
    ):
        client.send(post(b"{}", "/v1/files/f/content"))
        last = -1
        while written != last:  # until the flow stands still
            last = written
            wait_for(lambda: not asyncio.run(asyncio.sleep(0.3)))
        assert 0 < written < total / 2
        assert len(client.reply().body) == total


def test_expect_continue_is_answered_and_not_forwarded(tmp_path: Path) -> None:
    body = chat()
    with (
        Origin() as origin,
        Proxy(tmp_path, teacher=origin.url) as proxy,
        Client(proxy.port) as client,
    ):
        client.send(post(body, "/v1/chat/completions", "Expect: 100-continue")[: -len(body)])
        assert client.head() == b"HTTP/1.1 100 Continue"
        client.send(body)
        assert client.reply().body == CHAT
    assert origin.requests[0].header("expect") is None


def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    async def answer(request: Received, line: Line) -> None:
        if b"slow" in request.body:
            await asyncio.sleep(0.2)
        await line.send(sized(request.body))

    bodies = [chat("slow one"), chat("two"), chat("three")]
    with (
        Origin(answer) as origin,
        Proxy(tmp_path, teacher=origin.url) as proxy,
        Client(proxy.port) as client,
    ):
        health = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
        client.send(post(bodies[0]) + health + post(bodies[1]) + health + post(bodies[2]))
        assert client.reply().body == bodies[0]
        assert client.reply().json == {"status": "ok"}
        assert client.reply().body == bodies[1]
        assert client.reply().json == {"status": "ok"}
        assert client.reply().body == bodies[2]


def test_a_thousand_pipelined_refusals_and_health_checks_do_not_recurse(tmp_path: Path) -> None:
    with Proxy(tmp_path, teacher="http://127.0.0.1:9/v1") as proxy, Client(proxy.port) as client:
        client.send(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n" * 1000)
        for _ in range(1000):
            assert client.reply().status == 200


def test_http_1_0_client_gets_a_close_delimited_stream(tmp_path: Path) -> None:
    with Origin() as origin, Proxy(tmp_path, teacher=origin.url) as proxy:
        reply = ask(proxy.port, post(chat(stream=True), version="1.0"))
    assert reply.header("transfer-encoding") is None
    assert reply.header("connection") == "close"
    assert reply.body == STREAM


def test_connection_close_is_honoured(tmp_path: Path) -> None:
    with (
        Origin() as origin,
        Proxy(tmp_path, teacher=origin.url) as proxy,
        Client(proxy.port) as client,
    ):
        client.send(post(chat(), "/v1/chat/completions", "Connection: close"))
        reply = client.reply()
        assert reply.header("connection") == "close"
        assert reply.body == CHAT
        assert client.rest() == b""


@pytest.mark.parametrize(
    ("method", "answer_bytes", "status"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 77\r\n\r\n", 200),
        ("DELETE", b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        ("GET", b'HTTP/1.1 304 Not Modified\r\netag: "x"\r\n\r\n', 304),
    ],
)
def test_answers_without_a_body(
    tmp_path: Path, method: str, answer_bytes: bytes, status: int
) -> None:
    async def answer(request: Received, line: Line) -> None:
        await line.send(answer_bytes)

    with (
        Origin(answer) as origin,
        Proxy(tmp_path, teacher=origin.url) as proxy,
        Client(proxy.port) as client,
    ):
        for _ in range(2):  # the connections stay usable, on both sides
            client.send(f"{method} /v1/files/f HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            reply = client.reply(method)
            assert reply.status == status
            assert reply.header("transfer-encoding") is None
        if method == "HEAD":
            assert reply.header("content-length") == "77"
    assert origin.connections == 1


def test_interim_answers_are_passed_on_and_100_is_not(tmp_path: Path) -> None:
    async def answer(request: Received, line: Line) -> None:
        early = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
        await line.send(b"HTTP/1.1 100 Continue\r\n\r\n" + early, sized(CHAT))

    with (
        Origin(answer) as origin,
        Proxy(tmp_path, teacher=origin.url) as proxy,
        Client(proxy.port) as client,
    ):
        client.send(post(chat()))
        assert client.head() == b"HTTP/1.1 103 Early Hints\r\nlink: </x>"
        assert client.reply().body == CHAT


def test_close_delimited_answer_is_chunked_for_the_client(tmp_path: Path) -> None:
    async def answer(request: Received, line: Line) -> None:
        await line.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n", b"one", b"two", pause_s=0.02
        )
        line.close()

    with Origin(answer) as origin, Proxy(tmp_path, teacher=origin.url) as proxy:
        with Client(proxy.port) as client:
            for _ in range(2):
                client.send(post(chat()))
                reply = client.reply()
                assert reply.header("transfer-encoding") == "chunked"
                assert reply.body == b"onetwo"
        assert [a.response_body for a in proxy.ended(2)] == [b"onetwo"] * 2


def test_bytes_after_the_end_of_an_answer_cost_the_connection(tmp_path: Path) -> None:
    async def answer(request: Received, line: Line) -> None:
        await line.send(sized(CHAT) + b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison")

    with (
        Origin(answer) as origin,
        Proxy(tmp_path, teacher=origin.url) as proxy,
        Client(proxy.port) as client,
    ):
        for _ in range(3):
            client.send(post(chat()))
            assert client.reply().body == CHAT
    assert origin.connections == 3


def test_bytes_on_an_idle_connection_cost_the_connection(tmp_path: Path) -> None:
    async def answer(request: Received, line: Line) -> None:
        await line.send(sized(CHAT))
        await asyncio.sleep(0.1)
        await line.send(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison")

    with (
        Origin(answer) as origin,
        Proxy(tmp_path, teacher=origin.url) as proxy,
        Client(proxy.port) as client,
    ):
        client.send(post(chat()))
        assert client.reply().body == CHAT
        wait_for(lambda: origin.closed == 1)
        client.send(post(chat()))
        assert client.reply().body == CHAT
    assert origin.connections == 2


def test_keep_alive_reuses_one_upstream_connection(tmp_path: Path) -> None:
    with Origin() as origin, Proxy(tmp_path, teacher=origin.url) as proxy:
        for _ in range(3):
            with Client(proxy.port) as client:
                for stream in (False, True):
                    client.send(post(chat(stream=stream)))
                    assert client.reply().body == (STREAM if stream else CHAT)
    assert origin.connections == 1


def test_reused_connection_that_dies_before_the_first_byte_is_retried_once(tmp_path: Path) -> None:
    async def answer(request: Received, line: Line) -> None:
        mine = [r for r in line.origin.requests if r.connection == request.connection]
        if len(mine) > 1:
            line.abort()  # what a server does whose keep-alive has just run out
        else:
            await line.send(sized(CHAT))

    with Origin(answer) as origin, Proxy(tmp_path, teacher=origin.url) as proxy:
        with Client(proxy.port) as client:
            for _ in range(3):
                client.send(post(chat()))
                assert client.reply().body == CHAT
        assert proxy.site.pool.retried == 2
        assert len(proxy.ended(3)) == 3
    assert origin.connections == 3


def test_fresh_connection_that_dies_is_no_reason_to_send_again(tmp_path: Path) -> None:
    async def answer(request: Received, line: Line) -> None:
        line.abort()

    with Origin(answer) as origin, Proxy(tmp_path, teacher=origin.url) as proxy:
        reply = ask(proxy.port, post(chat()))
        [attempt] = proxy.ended()
    assert reply.status == 502
    assert reply.json["error"]["code"] == "upstream_closed"
    assert len(origin.requests) == 1
    assert attempt.response is not None
    assert attempt.response["outcome"] == "error"
    assert attempt.response["error_type"] == "closed"


def test_answer_that_is_no_http_is_a_502(tmp_path: Path) -> None:
    async def answer(request: Received, line: Line) -> None:
        await line.send(b"SSH-2.0-OpenSSH\r\n\r\n")

    with Origin(answer) as origin, Proxy(tmp_path, teacher=origin.url) as proxy:
        reply = ask(proxy.port, post(chat()))
    assert (reply.status, reply.json["error"]["code"]) == (502, "upstream_protocol")


def test_endless_head_of_an_answer_is_a_502(tmp_path: Path) -> None:
    async def answer(request: Received, line: Line) -> None:
        await line.send(
            b"HTTP/1.1 200 OK\r\n", *[b"x-%d: %b\r\n" % (i, b"v" * 4000) for i in range(99)]
        )

    with Origin(answer) as origin, Proxy(tmp_path, teacher=origin.url) as proxy:
        reply = ask(proxy.port, post(chat()))
    assert (reply.status, reply.json["error"]["code"]) == (502, "upstream_protocol")


def test_stream_that_breaks_off_between_events_ends_in_an_error_event(tmp_path: Path) -> None:
    async def answer(request: Received, line: Line) -> None:
        await line.send(SSE_HEAD, chunked(STREAM[: -len(DONE)]), pause_s=0.05)
        line.abort()

    with Origin(answer) as origin, Proxy(tmp_path, teacher=origin.url) as proxy:
        with Client(proxy.port) as client:
            client.send(post(chat(stream=True)))
            client.head()
            rest = client.rest()
        [attempt] = proxy.ended()
    assert b"upstream_abort" in rest
    assert not rest.endswith(b"0\r\n\r\n")
    assert attempt.response is not None
    assert attempt.response["outcome"] == "upstream_abort"
    assert attempt.response_body == STREAM[: -len(DONE)]


def test_stream_that_breaks_off_inside_an_event_is_only_cut(tmp_path: Path) -> None:
    async def answer(request: Received, line: Line) -> None:
        await line.send(SSE_HEAD, chunked(STREAM[:40]), pause_s=0.05)
        line.abort()

    with (
        Origin(answer) as origin,
        Proxy(tmp_path, teacher=origin.url) as proxy,
        Client(proxy.port) as client,
    ):
        client.send(post(chat(stream=True)))
        client.head()
        assert client.rest() == chunked(STREAM[:40])


def test_truncated_sized_answer_is_not_completed(tmp_path: Path) -> None:
    async def answer(request: Received, line: Line) -> None:
        await line.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        await asyncio.sleep(0.05)
        line.close()

    with Origin(answer) as origin, Proxy(tmp_path, teacher=origin.url) as proxy:
        with Client(proxy.port) as client:
            client.send(post(chat()))
            client.head()
            assert client.rest() == b"half"
        [attempt] = proxy.ended()
    assert attempt.response is not None
    assert attempt.response["outcome"] == "upstream_abort"


def test_compressed_bodies_go_both_ways_as_they_are(tmp_path: Path) -> None:
    packed = gzip.compress(chat())
    answer_packed = gzip.compress(CHAT)

    async def answer(request: Received, line: Line) -> None:
        await line.send(sized(answer_packed, extra=b"content-encoding: gzip\r\n"))

    with Origin(answer) as origin, Proxy(tmp_path, teacher=origin.url) as proxy:
        request = post(packed, "/v1/chat/completions", "Content-Encoding: gzip")
        reply = ask(proxy.port, request)
        [attempt] = proxy.ended()
    assert origin.requests[0].body == packed
    assert origin.requests[0].header("content-encoding") == b"gzip"
    assert reply.body == answer_packed
    assert attempt.request_body == packed
    assert attempt.request["model_requested"] == "gpt-4o"
    assert attempt.response_body == answer_packed
    assert attempt.response is not None
    assert attempt.response["content_encoding"] == "gzip"


def test_long_answers_leave_memory_in_chunks_and_stay_whole(tmp_path: Path) -> None:
    data = bytes(range(256)) * 8192  # 2 MiB

    async def answer(request: Received, line: Line) -> None:
        await line.send(sized(data))

    with Origin(answer) as origin, Proxy(tmp_path, teacher=origin.url) as proxy:
        assert ask(proxy.port, post(chat())).body == data
        [attempt] = proxy.ended()
    assert attempt.response is not None
    assert attempt.response["chunks"] >= 4
    assert attempt.response_body == data


# Limits


def test_body_over_the_limit_is_a_413_in_openai_shape(tmp_path: Path) -> None:
    with (
        Origin() as origin,
        Proxy(tmp_path, teacher=origin.url, listen={"max_body_mb": 0.01}) as proxy,
    ):
        for path in ("/v1/chat/completions", "/v1/files"):
            reply = ask(proxy.port, post(b"x" * 20_000, path))
            assert reply.status == 413
            assert reply.json["error"]["code"] == "request_too_large"
            assert reply.header("connection") == "close"
        head = (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        assert ask(proxy.port, head + chunked(b"x" * 20_000)).status == 413
    assert origin.requests == []


def test_head_over_the_limit_is_a_431_even_if_it_never_ends(tmp_path: Path) -> None:
    with Proxy(tmp_path, teacher="http://127.0.0.1:9/v1", listen={"max_header_kb": 4}) as proxy:
        reply = ask(proxy.port, post(chat(), "/v1/chat/completions", "x-long: " + "y" * 5000))
        assert reply.status == 431
        with Client(proxy.port) as client:
            client.send(b"POST /v1/chat/completions HTTP/1.1\r\n")
            for i in range(100):
                client.send(b"x-%d: %b\r\n" % (i, b"y" * 1000))
            assert client.rest().startswith(b"HTTP/1.1 431")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n",
        b"POST /v1/x HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        b"GET http://169.254.169.254/latest HTTP/1.1\r\nhost: x\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_request_is_a_400_and_goes_nowhere(tmp_path: Path, garbage: bytes) -> None:
    with (
        Origin() as origin,
        Proxy(tmp_path, teacher=origin.url) as proxy,
        Client(proxy.port) as client,
    ):
        client.send(garbage)
        reply = client.reply()
        assert reply.status == 400
        assert reply.json["error"]["type"] == "invalid_request_error"
        assert client.rest() == b""
    assert origin.requests == []


def test_slow_head_and_slow_body_are_408_and_idle_is_closed(tmp_path: Path) -> None:
    listen = {"client_timeout_s": 0.3, "keep_alive_s": 0.3}
    with Origin() as origin, Proxy(tmp_path, teacher=origin.url, listen=listen) as proxy:
        with Client(proxy.port) as client:
            client.send(b"POST /v1/chat/completions HTTP/1.1\r\nhos")
            assert client.reply().status == 408
        with Client(proxy.port) as client:
            client.send(post(chat())[:-5])
            assert client.reply().status == 408
        with Client(proxy.port) as client:
            client.send(post(chat()))
            assert client.reply().status == 200
            assert client.rest() == b""
        with Client(proxy.port) as client:
            assert client.rest() == b""


def test_silent_teacher_is_a_504(tmp_path: Path) -> None:
    async def answer(request: Received, line: Line) -> None:
        await asyncio.sleep(30)

    with Origin(answer) as origin:
        teacher = {"base_url": origin.url, "first_byte_timeout_s": 0.3}
        with Proxy(tmp_path, teacher=teacher) as proxy:
            reply = ask(proxy.port, post(chat()))
            [attempt] = proxy.ended()
    assert reply.status == 504
    assert reply.json["error"]["code"] == "upstream_timeout"
    assert attempt.response is not None
    assert attempt.response["error_type"] == "timeout"


def test_teacher_down_is_a_502_and_recorded(tmp_path: Path) -> None:
    with Proxy(tmp_path, teacher="http://127.0.0.1:9/v1") as proxy:
        reply = ask(proxy.port, post(chat()))
        [attempt] = proxy.ended()
    assert reply.status == 502
    assert "127.0.0.1:9" in reply.json["error"]["message"]
    assert attempt.response is not None
    assert attempt.response["outcome"] == "error"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"model": 5}', b'{"messages": "x"}', b"\xff\xfe", b"null"]
)
def test_malformed_json_is_relayed_and_recorded(tmp_path: Path, body: bytes) -> None:
    async def answer(request: Received, line: Line) -> None:
        await line.send(sized(b'{"error":{"message":"bad"}}', "400 Bad Request"))

    with Origin(answer) as origin, Proxy(tmp_path, teacher=origin.url) as proxy:
        reply = ask(proxy.port, post(body))
        [attempt] = proxy.ended()
    assert (reply.status, reply.body) == (400, b'{"error":{"message":"bad"}}')
    assert origin.requests[0].body == body
    assert attempt.request_body == body
    assert attempt.response is not None
    assert attempt.response["error_type"] == "http_400"


def test_early_answer_ends_an_upload(tmp_path: Path) -> None:
    async def answer(request: Received, line: Line) -> None:
        await line.send(sized(b'{"error":{}}', "401 Unauthorized"))
        await line.reader.read()

    with Origin(answer, lazy=True) as origin, Proxy(tmp_path, teacher=origin.url) as proxy:
        with Client(proxy.port) as client:
            client.send(b"POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: 9999\r\n\r\nsome")
            reply = client.reply()
            assert reply.status == 401
            assert reply.header("connection") == "close"
            assert client.rest() == b""
        proxy.ended()


def test_websocket_upgrade_is_a_byte_tunnel(tmp_path: Path) -> None:
    async def answer(request: Received, line: Line) -> None:
        await line.send(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
        )
        while data := await line.reader.read(1000):
            await line.send(data[::-1])
        line.close()

    with (
        Origin(answer) as origin,
        Proxy(tmp_path, teacher=origin.url) as proxy,
        Client(proxy.port) as client,
    ):
        client.send(
            b"GET /v1/realtime?model=m HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\n"
            b"upgrade: websocket\r\nauthorization: Bearer k\r\n\r\nearly"
        )
        assert client.head().startswith(b"HTTP/1.1 101 ")
        assert client.exactly(5) == b"ylrae"
        client.send(b"\x00\xffab")
        assert client.exactly(4) == b"ba\xff\x00"
    [got] = origin.requests
    assert got.header("upgrade") == b"websocket"
    assert got.header("connection") == b"Upgrade"
    assert got.header("authorization") == b"Bearer k"


def test_offer_of_h2c_is_ignored_and_the_body_is_kept(tmp_path: Path) -> None:
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAA")
    with (
        Origin() as origin,
        Proxy(tmp_path, teacher=origin.url) as proxy,
        Client(proxy.port) as client,
    ):
        for _ in range(2):
            client.send(post(chat(), "/v1/chat/completions", *offer))
            assert client.reply().body == CHAT
    assert [r.body for r in origin.requests] == [chat(), chat()]
    assert origin.requests[0].header("upgrade") is None


def test_refusal_of_a_later_request_reaches_the_client(tmp_path: Path) -> None:
    with (
        Origin() as origin,
        Proxy(tmp_path, teacher=origin.url, listen={"max_body_mb": 0.001}) as proxy,
        Client(proxy.port) as client,
    ):
        client.send(post(chat()))
        assert client.reply().status == 200
        client.send(post(b"x" * 3000))
        assert client.reply().status == 413
