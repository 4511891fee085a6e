"""The pure pieces: the exchange's rules, the decision, the breaker, splicing, the view, budgets."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.breaker import FAILURES, FIRST_PAUSE_S, LONGEST_PAUSE_S, Breaker
from proxy.budget import Budget, tokens_of
from proxy.decide import Conditions, bucket_of, decide
from proxy.exchange import Do, Exchange
from proxy.intake import Intake
from proxy.message import Request
from proxy.splice import splice_model
from proxy.sse import error_event, is_final, opening
from proxy.view import RequestView, read_view
from understudy.policy import Policy, Student, WorkloadPolicy


class AnyCourse(RuleBasedStateMachine):
    """An exchange under every order of events that its driver could tell it of."""

    @initialize(student=st.booleans(), finish=st.booleans())
    def begin(self, student: bool, finish: bool) -> None:
        arms = ("student", "teacher") if student else ("teacher",)
        self.exchange = Exchange(arms, finish)
        self.opened, self.closed = 1, 0
        self.answers = 0  # how often an answer to the client was begun
        self.client_there = True

    def obey(self, do: Do) -> None:
        if do is Do.FALL_BACK:
            assert self.answers == 0, "replaced after a byte went out"
            assert self.client_there
            self.closed += 1
            self.opened += 1
        elif do in (Do.SEND_HEAD, Do.REFUSE):
            assert self.client_there
            self.answers += 1
        if do in (Do.FINISH, Do.REFUSE, Do.PASS_ERROR, Do.ABANDON, Do.CLOSE):
            self.closed += 1
        if do in (Do.FINISH, Do.PASS_ERROR):
            assert self.client_there

    def running(self) -> bool:
        return self.exchange.state != "done"

    @precondition(lambda self: self.exchange.state == "waiting")
    @rule(status=st.sampled_from([200, 201, 301, 400, 404, 429, 500, 503]))
    def head(self, status: int) -> None:
        self.obey(self.exchange.head(status))

    @precondition(lambda self: self.exchange.state in ("held", "relaying"))
    @rule()
    def body(self) -> None:
        self.obey(self.exchange.body())

    @precondition(lambda self: self.exchange.state in ("held", "relaying", "detached"))
    @rule()
    def end(self) -> None:
        if self.exchange.state == "held":
            self.answers += 1  # an empty answer: its head goes out with its end
        self.obey(self.exchange.end())

    @precondition(running)
    @rule()
    def fail(self) -> None:
        self.obey(self.exchange.failed())

    @precondition(lambda self: self.client_there)
    @rule()
    def leave(self) -> None:
        do = self.exchange.client_left()
        self.client_there = False
        self.obey(do)

    @precondition(lambda self: not self.running())
    @rule()
    def over(self) -> None:
        if self.client_there:
            self.obey(self.exchange.client_left())
            self.client_there = False

    @invariant()
    def at_most_one_answer_and_every_attempt_closed_once(self) -> None:
        assert self.answers <= 1
        assert self.closed == self.opened - (self.exchange.state != "done")


TestAnyCourse = AnyCourse.TestCase


def view_of(
    body: bytes, *headers: tuple[bytes, bytes], path: bytes = b"/v1/chat/completions"
) -> RequestView:
    return read_view(Request(b"POST", path, list(headers)), body, b"salt", 1 << 20)


def canary(weight: float, **more: object) -> Policy:
    student = Student(base_url="http://s/v1", model="s")
    rule = WorkloadPolicy(
        mode="canary", student=student, weight=weight, require_monitor=False, salt="x", **more
    )  # type: ignore[arg-type]
    return Policy(version=3, workloads={"w": rule})


def body_of(user: str) -> bytes:
    return json.dumps({"model": "m", "user": user, "messages": []}).encode()


@given(st.text(min_size=1), st.floats(0, 100), st.floats(0, 100))
def test_growing_the_weight_never_moves_anybody_back(user: str, one: float, two: float) -> None:
    view = view_of(body_of(user))
    low, high = sorted((one, two))
    before = decide(canary(low), view, Conditions(0.5))
    after = decide(canary(high), view, Conditions(0.5))
    assert before.bucket == after.bucket
    assert not (before.arm == "student" and after.arm == "teacher")
    assert decide(canary(0), view, Conditions(0.5)).arm == "teacher"
    assert decide(canary(100), view, Conditions(0.5)).arm == "student"


def test_buckets_are_uniform_and_differ_by_salt() -> None:
    rule = canary(5).workloads["w"]
    views = [view_of(body_of(f"u{i}")) for i in range(2000)]
    buckets = [bucket_of(rule, view) for view in views]
    tenths = [sum(int(b // 10) == t for b in buckets if b is not None) for t in range(10)]
    assert min(tenths) > 140
    assert max(tenths) < 260


def test_anonymous_traffic_is_split_by_conversation() -> None:
    bodies = [
        json.dumps({"model": "m", "messages": [{"role": "user", "content": f"q{i}"}]}).encode()
        for i in range(200)
    ]
    arms = {decide(canary(50), view_of(b), Conditions(0.5)).arm for b in bodies}
    assert arms == {"teacher", "student"}


@pytest.mark.parametrize(
    ("owner", "dead", "arm"),
    [
        ("file", set(), "student"),
        ("file", {"controller"}, "student"),
        ("file", {"monitor"}, "teacher"),
        ("controller", {"controller"}, "teacher"),
    ],
)
def test_who_must_live_for_a_student_to_serve(owner: str, dead: set[str], arm: str) -> None:
    student = Student(base_url="http://s/v1", model="s")
    rule = WorkloadPolicy(mode="student", student=student, owner=owner)  # type: ignore[arg-type]
    policy = Policy(workloads={"w": rule})
    decision = decide(policy, view_of(body_of("u")), Conditions(0.5, frozenset(dead)))
    assert decision.arm == arm
    assert (decision.reason == "dead_monitor") == (arm == "teacher")


@pytest.mark.parametrize(
    ("mode", "weight", "draw", "arm", "beside"),
    [
        ("teacher", 0, 0.0, "teacher", None),
        ("shadow", 0, 0.1, "teacher", "shadow"),
        ("shadow", 0, 0.3, "teacher", None),
        ("canary", 0, 0.1, "teacher", "shadow"),
        ("canary", 100, 0.01, "student", "holdout"),
        ("canary", 100, 0.1, "student", None),
        ("student", 0, 0.01, "student", "holdout"),
        ("hybrid", 0, 0.1, "teacher", "shadow"),  # no router at hand
    ],
)
def test_modes_as_the_contract_lists_them(
    mode: str, weight: float, draw: float, arm: str, beside: str | None
) -> None:
    rule = WorkloadPolicy(
        mode=mode,  # type: ignore[arg-type]
        student=Student(base_url="http://s/v1", model="s"),
        weight=weight,
        shadow_sample=0.2,
        holdout=0.05,
        require_monitor=False,
    )
    decision = decide(Policy(workloads={"w": rule}), view_of(body_of("u")), Conditions(draw))
    assert (decision.arm, decision.beside) == (arm, beside)


def test_breaker_opens_after_failures_in_a_row_and_probes_one_at_a_time() -> None:
    breaker = Breaker()
    for _ in range(FAILURES - 1):
        breaker.failed(0.0)
    breaker.succeeded()
    for _ in range(FAILURES):
        assert breaker.admit(1.0)
        breaker.failed(1.0)
    assert breaker.state == "open"
    assert not breaker.admit(1.0 + FIRST_PAUSE_S / 2)
    probe_at = 1.0 + FIRST_PAUSE_S
    assert breaker.admit(probe_at)
    assert breaker.state == "half_open"
    assert not breaker.admit(probe_at)
    breaker.failed(probe_at)
    assert not breaker.admit(probe_at + FIRST_PAUSE_S)
    assert breaker.admit(probe_at + 2 * FIRST_PAUSE_S)
    breaker.released()  # the probe's client left: the next one probes
    assert breaker.admit(probe_at + 2 * FIRST_PAUSE_S)
    breaker.succeeded()
    assert breaker.state == "closed"
    assert breaker.opened == 1


def test_breakers_pause_is_bounded() -> None:
    breaker, now = Breaker(), 0.0
    for _ in range(40):
        now += LONGEST_PAUSE_S
        assert breaker.admit(now)
        breaker.failed(now)
    assert breaker.retry_at is not None
    assert breaker.retry_at - now <= LONGEST_PAUSE_S


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("model"), inner),
    max_leaves=12,
)


@given(
    st.dictionaries(st.text(), json_values),
    st.dictionaries(st.text(), json_values),
    st.text(),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_splicing_changes_the_model_and_nothing_else(
    before: dict[str, object],
    after: dict[str, object],
    model: str,
    indent: int | None,
    ascii_: bool,
) -> None:
    before.pop("model", None), after.pop("model", None)
    body = {**before, "model": "gpt-4o", **after}
    raw = json.dumps(body, indent=indent, ensure_ascii=ascii_).encode("utf-8", "surrogatepass")
    spliced = splice_model(raw, model)
    assert spliced is not None
    assert json.loads(spliced.decode("utf-8", "surrogatepass")) == {**body, "model": model}
    assert splice_model(spliced, "gpt-4o") == raw


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'{"model": 5}',
        b'{"a": {"model": "x"}}',
        b'"model"',
        b'{"model": null}',
    ],
)
def test_nothing_to_splice(body: bytes) -> None:
    assert splice_model(body, "s") is None


def test_repeated_and_escaped_model_keys_are_all_replaced() -> None:
    body = b'{"model":"a","mod\\u0065l":"b","x":"model","y":{"model":"c"}}'
    assert (
        splice_model(body, "s") == b'{"model":"s","mod\\u0065l":"s","x":"model","y":{"model":"c"}}'
    )


@given(st.binary())
def test_no_body_makes_the_view_fail(body: bytes) -> None:
    for encoding in (b"", b"gzip", b"zstd", b"br", b"deflate"):
        view_of(body, (b"content-encoding", encoding))


@pytest.mark.parametrize(
    "make",
    [
        lambda: b"[" * 100_000,
        lambda: b'{"messages":' + b"[" * 100_000,
        lambda: b'{"model":"\\ud800","user":"\\ud800"}',
        lambda: b'{"messages":[1,null,"x"],"tools":{}}',
        lambda: b'{"metadata":{"a":NaN}}',
    ],
)
def test_hostile_json_is_only_unparsed(make: Callable[[], bytes]) -> None:
    view_of(make())


def test_decompression_is_bounded() -> None:
    import gzip

    bomb = gzip.compress(b'{"model":"m","x":"' + b"a" * (8 << 20) + b'"}')
    assert view_of(bomb, (b"content-encoding", b"gzip")).model is None


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_an_opening_waits_for_the_first_word(end: bytes) -> None:
    chunk = b'data: {"object":"chat.completion.chunk","choices":[{"delta":%b,"index":0}]}'
    role = chunk % b'{"role":"assistant","content":""}' + end
    assert opening(b"") == opening(role) == opening(b": ping" + end) == "wait"
    assert opening(role + b'data: {"error":{"message":"x"}}' + end) == "error"
    for said in (b'{"content":"a"}', b'{"tool_calls":[{}]}', b'{"reasoning":"a"}', b"null"):
        assert opening(role + chunk % said + end) == "answer"
    assert opening(b'data: {"type":"response.created"}' + end) == "answer"
    assert opening(b"data: [DONE]" + end) == opening(b"x" * 70_000) == "answer"


def test_final_events_and_error_events() -> None:
    assert is_final(b"data: [DONE]\n\n")
    assert is_final(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
    assert not is_final(b'data: {"x":"data: [DONE]"}\n\n')
    assert not is_final(b"data: [DONE]")
    assert error_event(b"data: {}\n\n", "gone").startswith(b'data: {"error":')
    assert error_event(b"data: {", "gone") == b""


def test_budget_is_per_day_and_usage_is_read_where_it_is() -> None:
    budget = Budget()
    budget.spend("w", 0.6, now=0.0)
    assert budget.allows("w", 1.0, now=1.0)
    budget.spend("w", 0.6, now=2.0)
    assert not budget.allows("w", 1.0, now=3.0)
    assert budget.allows("v", 1.0, now=3.0)
    assert budget.allows("w", 1.0, now=86_401.0)
    usage = b'{"prompt_tokens":7,"completion_tokens":2,"d":{"a":{}}}'
    stream = b'data: {"usage":null}\n\ndata: {"usage":%b}\n\n' % usage
    assert tokens_of(b"x" * 400, stream) == (7, 2)
    assert tokens_of(b"x" * 400, b"y" * 40) == (100, 10)


HEADS = st.lists(
    st.tuples(
        st.sampled_from(["Content-Length", "content-length", "Host", "X-A", "X-Content-Length"]),
        st.sampled_from(["0", "3", "03", "+3", "3 ", "x", "3\r\n 1", ""]),
    ),
    max_size=4,
)
READS = st.lists(
    st.one_of(
        st.tuples(HEADS, st.sampled_from([b"", b"abc", b"abcd"])).map(
            lambda one: (
                b"POST /v1/x HTTP/1.1\r\n"
                + b"".join(f"{n}: {v}\r\n".encode() for n, v in one[0])
                + b"\r\n"
                + one[1]
            )
        ),
        st.sampled_from([b"P", b"\r\n", b"POST /v1/x HTTP/1.1\r\n"]),
    ),
    min_size=1,
    max_size=5,
)


@given(st.lists(READS, min_size=1, max_size=4))
def test_remembered_heads_are_read_exactly_as_parsed_ones(connections: list[list[bytes]]) -> None:
    class Forgetful(dict[bytes, Request]):
        def __setitem__(self, key: bytes, value: Request) -> None:
            pass

    def seen(reads: list[bytes], known: dict[bytes, Request]) -> object:
        intake = Intake(10_000, lambda path: 10_000, known)
        for data in reads:
            intake.feed(data)
        requests = [
            (r.method, r.target, r.headers, r.length, b"".join(r.parts), r.complete, r.keep_alive)
            for r in intake.queue
        ]
        return requests, intake.refusal is None, intake.partial

    known: dict[bytes, Request] = {}
    for reads in connections:
        assert seen(reads, known) == seen(reads, Forgetful())
