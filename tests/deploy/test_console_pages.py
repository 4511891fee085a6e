"""The console's pages over HTTP, on a realistic lake and on broken ones."""

import json
import re
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import httpx
import msgspec
import pytest

from deploy.console.app import make_app
from tests.deploy import console_lake
from tests.deploy.console_server import serving
from understudy import documents
from understudy.lake import Lake
from understudy.views import connect

HOSTILE = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="alert(1)">',
    "'-alert(1)-'",
    "</pre></mark><iframe src=javascript:alert(1)>",
    "{{ 7 * 7 }}{% include 'x' %}",
    "<svg/onload=alert(1)>\N{RIGHT-TO-LEFT OVERRIDE}\x00",
)


class Console:
    """A lake, the console's address, and its clock, which the test sets."""

    def __init__(self, lake: Lake, now: float, client: httpx.Client) -> None:
        self.lake, self.now, self.client, self.url = lake, now, client, ""

    def get(self, path: str) -> httpx.Response:
        return self.client.get(self.url + path)

    def text(self, path: str = "/") -> str:
        """The page as a person reads it: without tags, single spaces."""
        response = self.get(path)
        assert response.status_code == 200, response.text
        bare = re.sub(r"<[^>]+>", " ", response.text)
        return re.sub(r"[\s\N{NO-BREAK SPACE}]+", " ", bare)


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=60) as one:
        yield one


def _console(root: Path, now: float, client: httpx.Client) -> Iterator[Console]:
    console = Console(Lake(root), now, client)
    config = root.parent / "understudy.yaml"
    app = make_app(console.lake, config if config.exists() else None, clock=lambda: console.now)
    with serving(app) as console.url:
        yield console


@pytest.fixture
def seeded(tmp_path: Path, client: httpx.Client) -> Iterator[Console]:
    now = time.time()
    console_lake.seed(tmp_path / "lake", now, exchanges=400)
    yield from _console(tmp_path / "lake", now, client)


@pytest.fixture
def empty(tmp_path: Path, client: httpx.Client) -> Iterator[Console]:
    (tmp_path / "lake").mkdir()
    yield from _console(tmp_path / "lake", time.time(), client)


def _pair_id(lake: Lake) -> str:
    query = (
        "SELECT exchange_id FROM pairs WHERE workload = 'triage' AND teacher_text <> student_text"
    )
    return str(connect(lake).execute(query).fetchall()[0][0])


def test_the_overview_says_each_workloads_state_in_a_sentence(seeded: Console) -> None:
    text = seeded.text()
    assert "canary 5 % student agrees 97.1 % [" in text
    assert "step 3 of 5 for 22 min: 488 of 800 pairs seen in this step" in text
    assert "shadow 20 %: the teacher answers, the student is asked unseen" in text
    assert "the teacher answers everything" in text


def test_the_figures_are_the_logs(seeded: Console) -> None:
    query = """SELECT count(*) FILTER (served AND arm = 'teacher'),
        count(*) FILTER (served AND arm = 'student') FROM exchanges
        WHERE workload = 'triage' AND requested_at >= to_timestamp($since)"""
    since = (seeded.now // 60 + 1) * 60 - 3600
    teacher, student = connect(seeded.lake).execute(query, {"since": since}).fetchall()[0]
    page = seeded.text("/workload/triage")
    assert f"answered clients {teacher:,} {student:,}" in page


def test_a_new_file_is_seen_and_an_old_row_leaves_the_window(seeded: Console) -> None:
    before = seeded.text()
    row = console_lake.row("e-1", seeded.now, "teacher", workload="billing")
    console_lake.write_rows(seeded.lake, "spool-new/0", [row])
    seeded.now += 2
    assert "billing" not in before
    assert "billing teacher 1" in seeded.text()
    seeded.now += 3 * 86_400
    assert "billing" not in seeded.text("/?window=24h")


def test_an_unknown_window_is_an_hour(seeded: Console) -> None:
    assert 'aria-current="true">1h' in seeded.get("/?window=%3Cscript%3E").text


def test_a_dead_monitor_is_said_first_and_takes_the_student_off_the_split(seeded: Console) -> None:
    seeded.now += 180
    text = seeded.text()
    assert "Monitor silent for 3 min The teacher answers everything" in text
    assert "canary suspended: the monitor is silent, the teacher answers everything" in text
    assert 'aria-label="The student answers 0\N{NO-BREAK SPACE}%"' in seeded.get("/").text


def test_a_rollback_is_said_with_its_reason(seeded: Console) -> None:
    event = documents.RolloutEvent(
        workload="triage", n=4, student="triage-0004", state="rolled_back", step=2,
        action="roll_back", reason="agreement 71 % is below the margin", at=seeded.now,
    )  # fmt: skip
    assert documents.add_rollout_event(seeded.lake, event)
    text = seeded.text()
    assert "triage: triage-0004 rolled back 0 s ago agreement 71 % is below the margin" in text
    assert "rollout rolled back 0 s ago" in text


@pytest.mark.parametrize(
    "key",
    [
        "control/monitor/triage.json",
        "control/students/triage.json",
        "control/heartbeats/monitor.json",
        "control/policy/0000000004.json",
        "control/rollouts/triage/0000000003.json",
        "audit/spool-0198b7c0-4f1e.json",
    ],
)
def test_a_torn_document_is_named_and_hides_nothing_else(seeded: Console, key: str) -> None:
    path = seeded.lake.path(key)
    path.write_bytes(path.read_bytes()[:-9])
    text = seeded.text()
    assert f"{key} cannot be read" in text
    assert "student agrees 93.4 %" in text
    assert "Requests per minute" in seeded.text("/workload/triage")


def test_a_torn_parquet_file_is_named_and_hides_nothing_else(seeded: Console) -> None:
    torn = seeded.lake.path("log/part=spool-torn/00000000000000000000.parquet")
    torn.parent.mkdir()
    torn.write_bytes(b"PAR1 and then the power went")
    text = seeded.text()
    assert str(torn) in text
    assert re.search(r"answered clients \d\d\d", text)


def test_an_empty_lake_says_what_to_do_next(empty: Console) -> None:
    text = empty.text()
    assert "No workload yet" in text
    assert "workloads:" in text
    assert "No policy in the lake yet" in text
    assert "No audit yet" in text


def test_a_lake_that_is_not_there_yet_is_no_error(tmp_path: Path, client: httpx.Client) -> None:
    for console in _console(tmp_path / "nowhere", time.time(), client):
        assert "no lake at" in console.text()
        assert console.get("/exchange/e-1").status_code == 404


def test_a_workload_without_pairs_is_told_to_shadow(seeded: Console) -> None:
    rows = [console_lake.row("e-2", seeded.now, "teacher", workload="chat")]
    console_lake.write_rows(seeded.lake, "spool-chat/0", rows)
    documents.write_aliases(seeded.lake, "chat", documents.Aliases(candidate="chat-0001"))
    assert "No pairs yet: set mode: shadow" in seeded.text("/workload/chat")
    assert "set mode: shadow" in seeded.text("/workload/chat/disagreements")


def test_disagreements_are_marked_word_by_word(seeded: Console) -> None:
    page = seeded.get("/workload/triage/disagreements").text
    assert re.search(r"<mark>\w+</mark>", page)
    assert f"/exchange/{_pair_id(seeded.lake)}" in page


def test_old_pairs_are_found_where_there_are_no_newer_ones(empty: Console) -> None:
    at = empty.now - 70_000
    for arm in ("teacher", "student"):
        rows = [console_lake.row("e-old", at, arm, answer=f"said by the {arm}")]
        console_lake.write_rows(empty.lake, f"spool-{arm}/0", rows)
    assert "said by the" not in empty.text("/workload/triage/disagreements?window=6h")
    assert "said by the" in empty.text("/workload/triage/disagreements?window=24h")


def test_json_that_differs_only_in_its_spaces_is_no_disagreement(empty: Console) -> None:
    teacher = console_lake.row("e-3", empty.now, "teacher", answer='{"a":1,"b":2}')
    student = console_lake.row("e-3", empty.now, "student", answer='{"b": 2, "a": 1}')
    console_lake.write_rows(empty.lake, "spool-a/0", [teacher, student])
    documents.write_aliases(empty.lake, "triage", documents.Aliases(candidate="triage-0001"))
    text = empty.text("/workload/triage/disagreements")
    assert "agreed with the teacher on all of the newest 1 pairs" in text


def test_an_exchange_shows_every_attempt_and_its_feedback(empty: Console) -> None:
    rows = [
        console_lake.row("e-4", empty.now, "teacher", answer="yes", role="fallback"),
        console_lake.row("e-4", empty.now, "student", served=False, outcome="error", status=500),
        {
            "kind": "feedback",
            "exchange_id": "e-4",
            "feedback_id": "f-1",
            "comment": "wrong tone",
            "requested_at": round(empty.now * 1000),
        },
    ]
    console_lake.write_rows(empty.lake, "spool-b/0", rows)
    text = empty.text("/exchange/e-4")
    assert "teacher served complete" in text
    assert "student not served error" in text
    assert "status 500" in text
    assert "wrong tone" in text
    assert empty.get("/exchange/e-5").status_code == 404


def test_an_exchange_without_contents_says_why(empty: Console) -> None:
    row = console_lake.row("e-6", empty.now, "teacher") | {"messages": None, "choices": None}
    console_lake.write_rows(empty.lake, "spool-c/0", [row])
    assert "the capture level keeps only the metadata" in empty.text("/exchange/e-6")


class _Tags(HTMLParser):
    """What a browser would make of a page: its tags and its event handlers."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handlers += [name for name, value in attrs if name.startswith(("on", "style"))]
        links = [value or "" for name, value in attrs if name in ("href", "src")]
        self.handlers += [value for value in links if ":" in value]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_stays_text_on_every_page(empty: Console, hostile: str) -> None:
    lake, now = empty.lake, empty.now
    said = {
        "question": hostile,
        "provider": hostile,
        "error_type": hostile,
        "route_reason": hostile,
    }
    teacher = console_lake.row("e-7", now, "teacher", answer=f"{hostile} yes", **said)
    student = console_lake.row(
        "e-7", now, "student", answer=f"{hostile} no", adapter=hostile, role=hostile, **said
    )
    failed = console_lake.row("e-8", now, "student", outcome="error", **said)
    teacher["messages"].append({"role": hostile, "content": hostile, "name": hostile})
    feedback = {"kind": "feedback", "exchange_id": "e-7", "feedback_id": "f", "comment": hostile}
    console_lake.write_rows(
        lake, "spool-d/0", [teacher, student, failed, {**feedback, "requested_at": 0}]
    )
    console_lake.write_rows(
        lake, "spool-d/9", [console_lake.row("e-9", now, "teacher", workload=hostile)]
    )
    console_lake.put_policy(lake, 1, now, hostile, mode="shadow", note=hostile)
    console_lake.verdict(lake, now, "gate", "FAIL", hostile, {hostile: hostile})
    documents.write_aliases(lake, "triage", documents.Aliases(candidate=hostile, champion=hostile))
    beat = documents.Heartbeat(name=hostile, at=now)
    lake.put("control/heartbeats/monitor.json", msgspec.json.encode(beat))
    event = documents.RolloutEvent(
        workload="triage", n=1, student=hostile, state="rolled_back", step=0, action=hostile,
        reason=hostile, at=now,
    )  # fmt: skip
    documents.add_rollout_event(lake, event)
    for path in ("/", "/workload/triage", "/workload/triage/disagreements", "/exchange/e-7"):
        page = empty.get(path)
        assert page.status_code == 200
        seen = _Tags()
        seen.feed(page.text)
        assert not {"img", "iframe", "object", "embed", "style", "form"} & set(seen.tags), path
        scripts = re.findall(r"<script[^>]*>", page.text)
        assert all(' src="/static/' in script for script in scripts), path
        assert not seen.handlers, path
        assert "49{%" not in page.text


def test_every_page_forbids_inline_scripts_and_framing(seeded: Console) -> None:
    for path in ("/", "/workload/triage", "/exchange/none", "/nowhere", "/static/console.css"):
        policy = seeded.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy


def test_a_report_is_served_without_the_right_to_run_anything(seeded: Console) -> None:
    report = seeded.get("/reports/triage/triage-0004-20261120T0954/report.html")
    assert report.status_code == 200
    policy = report.headers["content-security-policy"]
    assert policy.startswith("sandbox")
    assert "script-src" not in policy
    assert seeded.get("/reports/triage/triage-0004-20261120T0954/report.json").json() == {
        "verdict": "PASS"
    }
    assert (
        "/reports/triage/triage-0004-20261120T0954/report.html"
        in seeded.get("/workload/triage").text
    )


@pytest.mark.parametrize(
    "path",
    [
        "triage/../../secret/report.json",
        "triage/..%2f..%2fsecret/report.json",
        "%2e%2e/secret/report.json",
        "..%2fsecret/x/report.json",
        "triage/%2e%2e/report.json",
        "triage/linked/report.json",
        "triage/.hidden/report.json",
        "triage/triage-0004-20261120T0954/student.json",
        "triage/triage-0004-20261120T0954/report.json%00.html",
        "%2fetc/passwd/report.json",
    ],
)
def test_no_path_leads_out_of_the_reports(seeded: Console, path: str) -> None:
    secret = seeded.lake.root / "secret"
    secret.mkdir()
    (secret / "report.json").write_text(json.dumps("the secret"))
    (seeded.lake.root / "reports/triage/.hidden").symlink_to(secret)
    (seeded.lake.root / "reports/triage/linked").symlink_to(secret)
    # A raw target: httpx itself would tidy the dots away.
    request = seeded.client.build_request("GET", seeded.url)
    request.url = request.url.copy_with(raw_path=b"/reports/" + path.encode())
    response = seeded.client.send(request)
    assert response.status_code == 404
    assert "the secret" not in response.text


def test_a_page_elsewhere_cannot_read_it_under_a_name_of_its_own(seeded: Console) -> None:
    for name in ("evil.example", "localhost.evil.example", ""):
        response = seeded.client.get(seeded.url, headers={"host": name})
        assert response.status_code == 421
    response = seeded.client.get(seeded.url, headers={"host": "localhost:8090"})
    assert response.status_code == 200


def test_nothing_but_reading_is_answered(seeded: Console) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert seeded.client.request(method, seeded.url + "/").status_code == 405
