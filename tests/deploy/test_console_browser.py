"""The console in a real browser: quiet, offline, live, and fit for dark rooms and phones."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from deploy.console.app import make_app
from tests.deploy import console_lake
from tests.deploy.console_server import serving
from understudy.lake import Lake
from understudy.views import connect

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATHS = ("/", "/?window=15m", "/workload/triage", "/workload/chat")


class Site(NamedTuple):
    """The console and the lake that it shows."""

    url: str
    lake: Lake
    now: float


class Seen:
    """What a page said on its console and asked of the network."""

    def __init__(self, page: Page) -> None:
        self.said: list[str] = []
        self.hosts: set[str] = set()
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))


@pytest.fixture(scope="module")
def browser(chromium: Path) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=str(chromium), args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield from _site(tmp_path_factory.mktemp("site"))


def _site(tmp_path: Path) -> Iterator[Site]:
    now = time.time()
    lake = console_lake.seed(tmp_path / "lake", now, exchanges=300)
    with serving(make_app(lake, tmp_path / "understudy.yaml", clock=lambda: now + 1)) as url:
        yield Site(url, lake, now)


def _paths(site: Site) -> list[str]:
    query = "SELECT exchange_id FROM pairs WHERE teacher_text <> student_text LIMIT 1"
    return [*PATHS, f"/exchange/{connect(site.lake).execute(query).fetchall()[0][0]}"]


def test_every_page_is_quiet_and_asks_nobody_else(browser: Browser, site: Site) -> None:
    page = browser.new_page()
    seen = Seen(page)
    for path in _paths(site):
        page.goto(site.url + path, wait_until="networkidle")
        expect(page.locator("main")).to_be_visible()
        assert seen.said == [], path
    assert seen.hosts == {urlsplit(site.url).netloc}


def test_a_new_policy_and_a_new_estimate_arrive_by_themselves(
    browser: Browser, tmp_path: Path
) -> None:
    for own in _site(tmp_path):
        _watch_it_change(browser, own)


def _watch_it_change(browser: Browser, site: Site) -> None:
    page = browser.new_page()
    seen = Seen(page)
    page.goto(site.url)
    card = page.locator("article.card", has_text="triage").first
    expect(card.locator(".headline")).to_contain_text("canary 5")
    expect(card.locator(".figure b")).to_contain_text("97.1")
    points = site.lake.get_json("control/monitor/triage.json")
    newest = {"at": site.now, "n": 1500, "agreement": 0.6543, "low": 0.64, "high": 0.67}
    console_lake.put_series(site.lake, "triage", [*points, newest])
    console_lake.put_policy(
        site.lake, 5, site.now, "triage: next step", mode="canary", weight=25.0, owner="controller"
    )
    expect(card.locator(".headline")).to_contain_text("canary 25", timeout=20_000)
    expect(card.locator(".figure b")).to_contain_text("65.4")
    expect(page.locator("#policy")).to_contain_text("triage: next step")
    assert seen.said == []


def test_a_lost_connection_is_said_and_so_is_its_return(browser: Browser, site: Site) -> None:
    page = browser.new_page()
    page.goto(site.url)
    expect(page.locator(".live .on")).to_be_visible()
    page.route("**/*", lambda route: route.abort())
    expect(page.locator(".live .off")).to_be_visible(timeout=20_000)
    page.unroute_all()
    expect(page.locator(".live .on")).to_be_visible(timeout=20_000)


def test_disagreements_load_and_lead_to_their_exchange(browser: Browser, site: Site) -> None:
    page = browser.new_page()
    page.goto(f"{site.url}/workload/triage")
    mistake = page.locator(".mistake").first
    expect(mistake.locator("mark").first).to_be_visible(timeout=20_000)
    mistake.locator("a").click()
    expect(page.locator("h1")).to_have_text(page.url.rsplit("/", 1)[1])
    expect(page.locator(".attempts > section")).to_have_count(2)


def test_a_hostile_answer_does_not_run(browser: Browser, site: Site) -> None:
    hostile = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>"
    rows = [
        console_lake.row("e-1", site.now, arm, question=hostile, answer=f"{hostile} {arm}")
        for arm in ("teacher", "student")
    ]
    console_lake.write_rows(site.lake, "spool-hostile/0", rows)
    page = browser.new_page()
    for path, text in (("/workload/triage", ".mistake blockquote"), ("/exchange/e-1", ".answer")):
        page.goto(site.url + path, wait_until="networkidle")
        expect(page.locator(text).first).to_contain_text("<img src=x")
        assert page.title() != "owned"


def test_a_report_cannot_run_its_scripts(browser: Browser, site: Site) -> None:
    page = browser.new_page()
    page.goto(f"{site.url}/reports/triage/triage-0004-20261120T0954/report.html")
    assert page.title() == "Report"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser: Browser, site: Site, scheme: str) -> None:
    page = browser.new_page(color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(f"{site.url}/workload/triage", wait_until="networkidle")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (_luminance(ground) < 0.2) == (scheme == "dark")
    for selector in (".headline", ".note", ".word", "td", "mark", ".shares", "h3", "a"):
        pair = page.evaluate(_COLOURS, selector)
        assert _contrast(*pair) >= 4.5, (selector, pair)


@pytest.mark.parametrize("width", [390, 768, 1440])
def test_no_page_is_wider_than_its_window(browser: Browser, site: Site, width: int) -> None:
    wide = "nobreak" * 60
    row = console_lake.row("e-2", site.now, "teacher", question=wide, answer=wide, provider=wide)
    console_lake.write_rows(site.lake, "spool-wide/0", [row, row | {"arm": "student"}])
    console_lake.put_policy(site.lake, 6, site.now, wide, mode="shadow", note=wide)
    page = browser.new_page(viewport={"width": width, "height": 844})
    for path in ["/", "/workload/triage", "/workload/chat", "/exchange/e-2"]:
        page.goto(site.url + path)
        if path == "/workload/triage":
            expect(page.locator(".mistake").first).to_be_visible(timeout=20_000)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path


# The colour of an element's text and that of the first ground below it that is not transparent.
_COLOURS = """selector => {
  const element = document.querySelector(selector);
  let ground = element;
  while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") {
    ground = ground.parentElement;
  }
  return [getComputedStyle(element).color, getComputedStyle(ground).backgroundColor];
}"""


def _luminance(colour: str) -> float:
    """WCAG's relative luminance of `rgb(r, g, b)`."""
    channels = [int(float(c)) / 255 for c in colour.split("(")[1].rstrip(")").split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)
