"""Who answers: modes, hold-out, fallback, breaker, shadow work and reload, on the running proxy."""

import asyncio
import gzip
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.proxy.origin import (
    CHAT,
    SSE_HEAD,
    STREAM,
    Line,
    Origin,
    Received,
    answer_chat,
    chunked,
    sized,
)
from tests.proxy.running import Client, Proxy, ask, chat, post, wait_for
from understudy.documents import beat

STUDENT_CHAT = CHAT.replace(b"hello", b"student")


async def answer_student(request: Received, line: Line) -> None:
    """A student that can be told from the teacher."""
    if b'"stream": true' in request.body:
        await answer_chat(request, line)
    else:
        await line.send(sized(STUDENT_CHAT))


def workload(student: str, mode: str, **more: Any) -> dict[str, Any]:
    """A workload for everything, without gate or monitor."""
    rule = {
        "student": {"base_url": student, "model": "s-1", "first_byte_timeout_s": 0.5},
        "mode": mode, "gate": {"required": False}, "require_monitor": False, "holdout": 0,
        "shadow": {"sample": 0},
    }  # fmt: skip
    return {"w": {**rule, **more}}


def test_student_answers_with_its_model_spliced_and_without_the_callers_key(tmp_path: Path) -> None:
    said = b'[{"role":"user","content":"a \\"model\\":\\"x\\""}]'
    body = b'{"metadata":{"model":"keep"}, "model" : "gpt-4o","messages":%b}' % said
    headers = (
        "Authorization: Bearer sk-caller", "X-Api-Key: k", "Cookie: c=1", "OpenAI-Organization: o",
        "X-Other: 1",
    )  # fmt: skip
    with Origin() as teacher, Origin(answer_student) as student:
        rules = workload(student.url, "student")
        with Proxy(tmp_path, teacher=teacher.url, workloads=rules) as proxy:
            reply = ask(proxy.port, post(body, "/v1/chat/completions", *headers))
            [attempt] = proxy.ended()
    assert reply.body == STUDENT_CHAT
    assert reply.header("x-understudy-arm") == "student"
    assert reply.header("x-understudy-model") == "s-1"
    [got] = student.requests
    assert got.body == body.replace(b'"model" : "gpt-4o"', b'"model" : "s-1"')
    assert got.header("x-other") == b"1"
    for name in ("authorization", "x-api-key", "cookie", "openai-organization"):
        assert got.header(name) is None
    assert teacher.requests == []
    request = attempt.request
    assert (request["arm"], request["role"], request["adapter"]) == ("student", "served", "s-1")
    assert (request["model_requested"], request["model_sent"]) == ("gpt-4o", "s-1")
    assert attempt.request_body == body


def test_student_gets_a_compressed_request_in_plain(tmp_path: Path) -> None:
    packed = gzip.compress(chat())
    with Origin() as teacher, Origin(answer_student) as student:
        rules = workload(student.url, "student")
        with Proxy(tmp_path, teacher=teacher.url, workloads=rules) as proxy:
            ask(proxy.port, post(packed, "/v1/chat/completions", "Content-Encoding: gzip"))
    [got] = student.requests
    assert json.loads(got.body)["model"] == "s-1"
    assert got.header("content-encoding") is None


def test_keys_from_the_environment_replace_the_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("T_KEY", "teacher-key")
    monkeypatch.setenv("S_KEY", "student-key")
    with Origin() as teacher, Origin(answer_student) as student:
        rules = workload(student.url, "canary", canary={"weight": 0}, shadow={"sample": 1})
        rules["w"]["student"]["api_key_env"] = "S_KEY"
        config = {"base_url": teacher.url, "api_key_env": "T_KEY"}
        with Proxy(tmp_path, teacher=config, workloads=rules) as proxy:
            ask(proxy.port, post(chat(), "/v1/chat/completions", "Authorization: Bearer caller"))
            proxy.ended(2)
    assert teacher.requests[0].header("authorization") == b"Bearer teacher-key"
    assert student.requests[0].header("authorization") == b"Bearer student-key"


@pytest.mark.parametrize(
    "way", ["refused", "500", "404", "400", "silent", "reset", "garbage", "half"]
)
def test_failing_student_is_replaced_unseen_before_the_first_byte(tmp_path: Path, way: str) -> None:
    async def answer(request: Received, line: Line) -> None:
        if way.isdigit():
            await line.send(sized(b'{"error":{}}', f"{way} No"))
        elif way == "silent":
            await asyncio.sleep(20)
        elif way == "reset":
            line.abort()
        elif way == "garbage":
            await line.send(b"\x00\x01 nonsense\r\n\r\n")
        else:  # a head, and then nothing: no byte of an answer yet
            await line.send(SSE_HEAD)
            line.abort()

    with Origin() as teacher, Origin(answer) as student:
        url = "http://127.0.0.1:9/v1" if way == "refused" else student.url
        with Proxy(tmp_path, teacher=teacher.url, workloads=workload(url, "student")) as proxy:
            reply = ask(proxy.port, post(chat()))
            first, second = proxy.ended(2)
    assert (reply.status, reply.body) == (200, CHAT)
    assert reply.header("x-understudy-arm") == "teacher"
    assert teacher.requests[0].body == chat()
    assert first.request["exchange_id"] == second.request["exchange_id"]
    assert (first.request["arm"], second.request["arm"]) == ("student", "teacher")
    assert (first.request["role"], second.request["role"]) == ("served", "fallback")
    assert first.response is not None
    assert second.response is not None
    assert (first.response["outcome"], first.response["served"]) == ("error", False)
    assert second.response["outcome"] == "complete"


ROLE = (
    b'data: {"id":"c1","object":"chat.completion.chunk",'
    b'"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
)


@pytest.mark.parametrize(
    "said", [b'data: {"error":{"message":"no adapter"}}\n\n', b": ping\n\n", b'data: {"id"']
)
@pytest.mark.parametrize("prelude", [b"", ROLE])
def test_student_stream_that_fails_before_its_first_word_is_replaced_unseen(
    tmp_path: Path, prelude: bytes, said: bytes
) -> None:
    async def answer(request: Received, line: Line) -> None:
        await line.send(SSE_HEAD, chunked(prelude + said), pause_s=0.1)
        line.abort()

    with Origin() as teacher, Origin(answer) as student:
        rules = workload(student.url, "student")
        with Proxy(tmp_path, teacher=teacher.url, workloads=rules) as proxy:
            with Client(proxy.port) as client:
                client.send(post(chat(stream=True)))
                assert client.reply().body == STREAM
            first, second = proxy.ended(2)
    assert first.response is not None
    assert first.response["error_type"] in ("in_band", "closed")
    assert first.response_body == prelude + said  # the record has what the student said
    assert second.request["role"] == "fallback"


def test_student_that_breaks_off_after_the_first_word_is_not_replaced(tmp_path: Path) -> None:
    said = STREAM[:250]  # a whole event and a part of the next

    async def answer(request: Received, line: Line) -> None:
        await line.send(SSE_HEAD, chunked(said), pause_s=0.1)
        line.abort()

    with Origin() as teacher, Origin(answer) as student:
        rules = workload(student.url, "student")
        with Proxy(tmp_path, teacher=teacher.url, workloads=rules) as proxy:
            with Client(proxy.port) as client:
                client.send(post(chat(stream=True)))
                client.head()
                assert client.rest() == chunked(said)
            [attempt] = proxy.ended()
    assert teacher.requests == []
    assert attempt.response is not None
    assert attempt.response["outcome"] == "upstream_abort"


def test_breaker_spares_a_dead_student_and_finds_it_again(tmp_path: Path) -> None:
    healthy = threading.Event()

    async def answer(request: Received, line: Line) -> None:
        if healthy.is_set():
            await answer_student(request, line)
        else:
            await line.send(sized(b"{}", "503 Busy"))

    with Origin() as teacher, Origin(answer) as student:
        rules = workload(student.url, "student")
        with Proxy(tmp_path, teacher=teacher.url, workloads=rules) as proxy:
            for _ in range(3):
                assert ask(proxy.port, post(chat())).body == CHAT
            [breaker] = (
                ask(proxy.port, b"GET /understudy/v1/status HTTP/1.1\r\n\r\n")
                .json["breakers"]
                .values()
            )
            assert breaker["state"] == "open"
            assert ask(proxy.port, post(chat())).body == CHAT
            assert len(student.requests) == 3
            reasons = [a.request["route_reason"] for a in proxy.ended(7)]
            assert reasons[-1] == "breaker_open"
            healthy.set()
            wait_for(lambda: ask(proxy.port, post(chat())).body == STUDENT_CHAT)
            assert ask(proxy.port, post(chat())).body == STUDENT_CHAT


def test_shadow_asks_the_student_after_the_answer_and_records_the_pair(tmp_path: Path) -> None:
    with Origin() as teacher, Origin() as student:
        rules = workload(student.url, "shadow", shadow={"sample": 1})
        with Proxy(tmp_path, teacher=teacher.url, workloads=rules) as proxy:
            for stream in (False, True):
                request = chat(
                    stream=stream, tools=[{"type": "function", "function": {"name": "f"}}]
                )
                reply = ask(proxy.port, post(request))
                assert reply.header("x-understudy-arm") == "teacher"
                assert reply.body == (STREAM if stream else CHAT)
            attempts = proxy.ended(4)
    pairs: dict[str, set[str]] = {}
    for a in attempts:
        pairs.setdefault(a.request["exchange_id"], set()).add(a.request["role"])
        assert a.response_body == (STREAM if a.request.get("stream") else CHAT)
        assert json.loads(a.request_body)["model"] == "gpt-4o"
        assert a.request["served"] == (a.request["role"] == "served")
    assert list(pairs.values()) == [{"served", "shadow"}] * 2
    assert len(student.requests) == 2


@pytest.mark.parametrize("way", ["silent", "reset", "500", "refused", "endless"])
def test_shadow_cannot_touch_the_answer(tmp_path: Path, way: str) -> None:
    async def answer(request: Received, line: Line) -> None:
        if way == "silent":
            await asyncio.sleep(20)
        elif way == "500":
            await line.send(sized(b"{}", "500 No"))
        elif way == "endless":
            await line.send(SSE_HEAD)
            while True:
                await line.send(chunked(b"x" * 100), pause_s=0.01)
        line.abort()

    with Origin() as teacher, Origin(answer) as student:
        url = "http://127.0.0.1:9/v1" if way == "refused" else student.url
        shadow = {"sample": 1, "max_in_flight": 2}
        rules = workload(url, "shadow", shadow=shadow)
        with Proxy(tmp_path, teacher=teacher.url, workloads=rules) as proxy:
            with Client(proxy.port) as client:
                for _ in range(6):
                    client.send(post(chat()))
                    assert client.reply().body == CHAT
            assert max(proxy.site.metrics.dropped.values(), default=0) <= 5
            if way in ("silent", "endless"):
                assert proxy.site.metrics.dropped["w", "max_in_flight"] == 4
        served = [a for a in proxy.attempts() if a.request["role"] == "served"]
        assert len(served) == 6
        assert all(a.end is not None for a in proxy.attempts())  # even those that were broken off


def test_shadow_budget_stops_at_its_dollars_and_needs_a_price(tmp_path: Path) -> None:
    with Origin() as teacher, Origin() as student:
        rules = workload(student.url, "shadow", shadow={"sample": 1, "usd_per_day": 0.0})
        prices = {"s-1": {"input": 1.0, "output": 1.0}}
        with Proxy(tmp_path, teacher=teacher.url, workloads=rules, prices=prices) as proxy:
            ask(proxy.port, post(chat()))
            wait_for(lambda: proxy.site.metrics.dropped["w", "budget"] == 1)
            proxy.configure(prices={})
            wait_for(lambda: "s-1" not in proxy.site.current.config.prices)
            ask(proxy.port, post(chat()))
            wait_for(lambda: proxy.site.metrics.dropped["w", "no_price"] == 1)
    assert student.requests == []


def test_holdout_asks_the_teacher_beside_the_student(tmp_path: Path) -> None:
    with Origin() as teacher, Origin(answer_student) as student:
        rules = workload(student.url, "student", holdout=0.5)
        with Proxy(tmp_path, teacher=teacher.url, workloads=rules) as proxy:
            while not teacher.requests:
                reply = ask(proxy.port, post(chat()))
                assert reply.body == STUDENT_CHAT
                proxy.ended()
            wait_for(lambda: all(a.end for a in proxy.attempts()))
            held = [a for a in proxy.attempts() if a.request["role"] == "holdout"]
    assert held
    assert held[0].request["arm"] == "teacher"
    assert held[0].request["served"] is False
    assert held[0].response_body == CHAT


def test_canary_splits_by_user_and_growing_it_moves_nobody_back(tmp_path: Path) -> None:
    with Origin() as teacher, Origin(answer_student) as student:
        rules = workload(student.url, "canary", canary={"weight": 30})
        with Proxy(tmp_path, teacher=teacher.url, workloads=rules) as proxy:

            def served_by() -> dict[str, str | None]:
                with Client(proxy.port) as client:
                    found = {}
                    for i in range(60):
                        client.send(post(chat(user=f"u{i}")))
                        found[f"u{i}"] = client.reply().header("x-understudy-arm")
                return found

            first = served_by()
            assert first == served_by()
            version = proxy.site.current.policy.version
            rules["w"]["canary"] = {"weight": 70}
            proxy.configure(workloads=rules)
            wait_for(lambda: proxy.site.current.policy.version > version)
            grown = served_by()
            attempts = proxy.ended(180)
    students = {user for user, arm in first.items() if arm == "student"}
    assert 0 < len(students) < 60
    assert students < {user for user, arm in grown.items() if arm == "student"}
    for a in attempts:
        weight = 30 if a.request["policy_version"] == version else 70
        assert (a.request["arm"] == "student") == (a.request["bucket"] < weight)


def test_dead_monitor_means_teacher_and_a_living_one_the_student(tmp_path: Path) -> None:
    with Origin() as teacher, Origin(answer_student) as student:
        rules = workload(student.url, "student", require_monitor=True)
        more = {"heartbeat_max_age_s": 2}
        with Proxy(tmp_path, teacher=teacher.url, workloads=rules, **more) as proxy:
            assert ask(proxy.port, post(chat())).body == CHAT
            [attempt] = proxy.ended()
            assert attempt.request["route_reason"] == "dead_monitor"
            beat(proxy.lake, "monitor")
            wait_for(lambda: ask(proxy.port, post(chat())).body == STUDENT_CHAT)
            wait_for(lambda: ask(proxy.port, post(chat())).body == CHAT)  # it went silent again


def test_hybrid_obeys_the_routers_score(tmp_path: Path) -> None:
    import msgspec

    from understudy.router import Artefact, features

    weights = [-9.0] * 1024
    for index in features("easy", 10):
        weights[index] = 9.0
    artefact = Artefact(
        bits=10, bias=0.0, weights=weights, student="s-1", workload="w", threshold=0.5
    )
    with Origin() as teacher, Origin(answer_student) as student:
        rules = workload(student.url, "hybrid")
        proxy = Proxy(tmp_path, teacher=teacher.url, workloads=rules)
        key = "control/routers/w/abc.json"
        proxy.lake.put(key, msgspec.json.encode(artefact))
        reference = {"key": key, "threshold": 0.5, "student": "s-1"}
        proxy.lake.put_json("control/routers/w/current.json", reference)
        with proxy:
            assert ask(proxy.port, post(chat("easy"))).body == STUDENT_CHAT
            assert ask(proxy.port, post(chat("difficult"))).body == CHAT
            easy, hard = proxy.ended(2)
    assert easy.request["router_score"] > 0.5 > hard.request["router_score"]


def test_bad_file_changes_nothing_and_the_good_one_is_live_without_restart(tmp_path: Path) -> None:
    with Origin() as teacher, Origin(answer_student) as student, Origin() as other:
        rules = workload(student.url, "teacher")
        with Proxy(tmp_path, teacher=teacher.url, workloads=rules) as proxy:
            stop = threading.Event()
            bad: list[int] = []

            def load() -> None:
                with Client(proxy.port) as client:
                    while not stop.is_set():
                        client.send(post(chat()))
                        status = client.reply().status
                        if status != 200:
                            bad.append(status)

            thread = threading.Thread(target=load)
            thread.start()
            for text in ("teacher: {", "teecher: {}", "workloads: {w: {mode: student}}", ""):
                proxy.path.write_text(text)
                time.sleep(0.4)
            assert proxy.site.current.policy.workloads["w"].mode == "teacher"
            proxy.configure(teacher={"base_url": other.url})
            wait_for(lambda: bool(other.requests))
            rules["w"]["mode"] = "student"
            proxy.configure(workloads=rules)
            wait_for(lambda: bool(student.requests))
            stop.set()
            thread.join()
    assert bad == []


def test_gateless_student_is_refused_with_a_message_and_the_teacher_answers(tmp_path: Path) -> None:
    with Origin() as teacher, Origin(answer_student) as student:
        rules = workload(student.url, "student", gate={"required": True})
        with Proxy(tmp_path, teacher=teacher.url, workloads=rules) as proxy:
            assert ask(proxy.port, post(chat())).body == CHAT
            status = ask(proxy.port, b"GET /understudy/v1/status HTTP/1.1\r\n\r\n").json
    assert "gate has not passed" in status["last_error"]


def test_state_and_other_endpoints_stay_with_the_teacher(tmp_path: Path) -> None:
    with Origin() as teacher, Origin(answer_student) as student:
        rules = workload(student.url, "student")
        with Proxy(tmp_path, teacher=teacher.url, workloads=rules) as proxy:
            ask(proxy.port, post(b'{"model":"m","input":"x"}', "/v1/embeddings"))
            ask(proxy.port, post(b'{"model":"m","previous_response_id":"r"}', "/v1/responses"))
            ask(proxy.port, b"GET /v1/models HTTP/1.1\r\n\r\n")
            ask(proxy.port, post(b'{"messages":[]}'))
            reasons = [a.request["route_reason"] for a in proxy.ended(4)]
    assert reasons == ["unsupported", "stateful", "unsupported", "unsupported"]
    assert student.requests == []


@pytest.mark.parametrize(
    ("match", "headers", "fields", "matches"),
    [
        ({"model": "gpt-4o"}, [], {}, True),
        ({"model": "other"}, [], {}, False),
        ({"metadata": {"task": "t"}}, [], {"metadata": {"task": "t", "x": "y"}}, True),
        ({"metadata": {"task": "t"}}, [], {"metadata": {"task": "u"}}, False),
        ({"header": {"X-App": "a"}}, ["x-app: a"], {}, True),
        ({"header": {"X-App": "a"}}, ["x-app: b"], {}, False),
        ({"model": "other"}, ["x-understudy-workload: w"], {}, True),
        ({}, [], {}, True),
    ],
)
def test_workload_matching(
    tmp_path: Path, match: dict[str, Any], headers: list[str], fields: dict[str, Any], matches: bool
) -> None:
    with (
        Origin() as teacher,
        Proxy(tmp_path, teacher=teacher.url, workloads={"w": {"match": match}}) as proxy,
    ):
        ask(proxy.port, post(chat(**fields), "/v1/chat/completions", *headers))
        [attempt] = proxy.ended()
    assert attempt.request.get("workload") == ("w" if matches else None)
