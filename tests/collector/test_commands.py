"""`understudy sql` and `understudy logs` as a person at a terminal sees them."""

import io
import json
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.collector.traffic import answer_body, begin, config_file, end, exchanges, feedback, spool
from understudy.cli import main


class Done(NamedTuple):
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


def understudy(folder: Path, *words: str) -> Done:
    """The command line in `folder`, in this process: a new one takes seconds to start."""
    out, err = io.StringIO(), io.StringIO()
    with chdir(folder), redirect_stdout(out), redirect_stderr(err):
        status = main(words)
    return Done(status, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config and a lake of four exchanges, one with a shadow answer."""
    folder = tmp_path_factory.mktemp("shop")
    config_file(folder)
    with spool(folder / "spool") as writer:
        exchanges(writer, 3, workload="triage", requested_at=1_795_000_000_000)
        asked = begin(
            writer, exchange_id="the-exchange", workload="triage", requested_at=1_795_000_001_000
        )
        end(writer, asked)
        shadow = begin(
            writer,
            exchange_id="the-exchange",
            arm="student",
            role="shadow",
            served=False,
            adapter="triage-0001",
            model_sent="triage-0001",
            requested_at=1_795_000_002_000,
        )
        end(writer, shadow, answer_body("two\nlines", "r-2").replace(b'"gpt"', b'"triage-0001"'))
        feedback(writer, exchange_id="the-exchange", correction="it is a refund")
    assert understudy(folder, "collect", "--once").returncode == 0
    return folder


def test_a_query_prints_an_aligned_table(shop: Path) -> None:
    done = understudy(
        shop,
        "sql",
        "SELECT arm, count(*) AS n, sum(cost_usd) AS usd FROM exchanges GROUP BY 1 ORDER BY 1",
    )
    assert done.stdout.splitlines() == [
        "arm      n    usd",
        "-------  -  -----",
        "student  1",
        "teacher  4  8e-05",
    ]


def test_json_and_csv_are_for_machines_and_a_query_may_come_by_a_pipe(shop: Path) -> None:
    query = "SELECT exchange_id, student_text FROM pairs"
    assert json.loads(understudy(shop, "sql", query, "--json").stdout) == [
        {"exchange_id": "the-exchange", "student_text": "two\nlines"}
    ]
    by_pipe = subprocess.run(
        [sys.executable, "-m", "understudy", "sql", "--csv"],
        cwd=shop,
        input="SELECT 1 AS a, 'x,y' AS b",
        capture_output=True,
        text=True,
        check=True,
    )
    assert by_pipe.stdout == 'a,b\n1,"x,y"\n'


def test_a_bad_query_is_one_line(shop: Path) -> None:
    done = understudy(shop, "sql", "SELECT nothing FROM nowhere")
    assert done.returncode == 1
    assert done.stderr.startswith("error: Catalog Error")
    assert "exchanges, pairs" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_missing_lake_is_one_line(tmp_path: Path) -> None:
    config_file(tmp_path)
    for words in (
        ("sql", "FROM pairs"),
        ("logs", "tail"),
        ("logs", "audit"),
        ("logs", "show", "x"),
    ):
        done = understudy(tmp_path, *words)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "no lake at" in done.stderr


def test_tail_lists_the_newest_attempts(shop: Path) -> None:
    lines = understudy(shop, "logs", "tail", "-n", "2").stdout.splitlines()
    assert len(lines) == 2
    assert "the-exchange" in lines[1]
    assert "shadow" in lines[1]
    assert lines[1].endswith("two lines")
    as_json = understudy(shop, "logs", "tail", "-n", "1", "--json").stdout
    assert json.loads(as_json)["arm"] == "student"


def test_show_finds_an_exchange_by_any_of_its_ids(shop: Path) -> None:
    page = understudy(shop, "logs", "show", "the-exchange").stdout
    for part in ("[user]", "question", "--- teacher", "--- student", "it is a refund", "    lines"):
        assert part in page
    found = json.loads(understudy(shop, "logs", "show", "the-exchange", "--json").stdout)
    for attempt in found["attempts"]:
        assert understudy(shop, "logs", "show", attempt["attempt_id"]).stdout == page
    response = found["attempts"][0]["response_id"]
    assert understudy(shop, "logs", "show", response).stdout == page
    done = understudy(shop, "logs", "show", "unheard-of")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_the_audit_counts_and_is_content(shop: Path) -> None:
    done = understudy(shop, "logs", "audit")
    assert done.returncode == 0
    assert "every frame is accounted for" in done.stdout
    (line,) = json.loads(understudy(shop, "logs", "audit", "--json").stdout)["spools"]
    assert (line["offered"], line["stored"], line["attempts"], line["feedback"]) == (12, 12, 5, 1)


def test_the_audit_tells_of_what_still_waits_in_the_spool(tmp_path: Path) -> None:
    config_file(tmp_path)
    (tmp_path / "lake").mkdir()
    with spool(tmp_path / "spool") as writer:
        exchanges(writer, 2)
        (line,) = json.loads(understudy(tmp_path, "logs", "audit", "--json").stdout)["spools"]
        assert (line["state"], line["offered"], line["waiting"]) == ("writing", 4, 4)


def test_the_audit_fails_where_a_file_of_the_chain_is_gone(tmp_path: Path) -> None:
    config_file(tmp_path, flush_rows=2)
    with spool(tmp_path / "spool") as writer:
        for _ in range(3):
            exchanges(writer, 2)
            understudy(tmp_path, "collect", "--once")
    files = sorted((tmp_path / "lake").glob("log/*/*.parquet"))
    files[1].unlink()
    done = understudy(tmp_path, "logs", "audit")
    assert done.returncode == 1
    assert "ALARM" in done.stdout
    assert "no file holds offsets" in done.stdout


def test_a_lake_that_cannot_be_written_is_named_and_nothing_is_lost(tmp_path: Path) -> None:
    config_file(tmp_path)
    with spool(tmp_path / "spool") as writer:
        exchanges(writer, 3)
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "log").touch()  # a file where a folder has to be
    done = understudy(tmp_path, "collect", "--once")
    assert done.returncode == 1
    assert "cannot" in done.stderr
    (tmp_path / "lake" / "log").unlink()
    assert understudy(tmp_path, "collect", "--once").returncode == 0
    counted = understudy(tmp_path, "sql", "SELECT count(*) AS n FROM exchanges", "--csv")
    assert counted.stdout == "n\n3\n"


def test_ship_without_kafka_says_what_to_do(tmp_path: Path) -> None:
    config_file(tmp_path)
    done = understudy(tmp_path, "ship")
    assert done.returncode == 1
    assert "bootstrap_servers" in done.stderr
