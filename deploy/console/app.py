"""The console's pages over HTTP: rendered on the server, read-only, under a strict CSP.

Handlers are plain functions, so that reading the lake happens off the event loop. Whatever users or
models wrote is escaped by the templates; reports are served sandboxed. Nothing is fetched from
elsewhere, and a page needs no inline script or style.
"""

import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, PackageLoader, StrictUndefined

from deploy.console import numerals
from deploy.console.contents import Contents, Disagreements
from deploy.console.control import ControlReader
from deploy.console.evidence import figures
from deploy.console.exchange import shown
from deploy.console.overview import Overview, overview
from deploy.console.report import REPORT_POLICY, read_report
from deploy.console.settings import Settings
from deploy.console.traffic import WINDOWS, Traffic
from understudy.errors import LakeError
from understudy.lake import Lake

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_FILTERS = {
    "percent": numerals.percent,
    "interval": numerals.interval,
    "usd": numerals.usd,
    "ms": numerals.milliseconds,
    "count": numerals.count,
    "duration": numerals.duration,
    "clock": numerals.clock,
    "moment": numerals.moment,
    "coded": numerals.coded,
    "evidence": figures,
}


class Console:
    """Reads the lake and renders pages of it."""

    def __init__(self, lake: Lake, settings: Settings, clock: Callable[[], float]) -> None:
        self.lake = lake
        self.contents = Contents(lake)
        self._clock = clock
        self._settings = settings
        self._traffic = Traffic(lake, clock)
        self._reader = ControlReader(lake)
        self._lock = threading.Lock()
        self._templates = Environment(
            loader=PackageLoader("deploy.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(_FILTERS)

    def look(self, window: str) -> Overview:
        """The state now; an unknown window is an hour."""
        config, problem = self._settings.read()
        with self._lock:
            control = self._reader.read(tuple(config.workloads) if config else ())
        figures = self._traffic.window(WINDOWS.get(window, WINDOWS["1h"]))
        return overview(control, figures, config, problem)

    def disagreements(self, workload: str, window: str) -> Disagreements:
        """The newest disagreements within a window."""
        seconds = WINDOWS.get(window, WINDOWS["1h"])
        return self.contents.disagreements(workload, self._clock(), seconds)

    def close(self) -> None:
        """Let go of the databases."""
        self._traffic.close()
        self.contents.close()

    def page(self, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """A rendered page."""
        values = {"windows": list(WINDOWS), "lake": str(self.lake.root), **values}
        return HTMLResponse(self._templates.get_template(template).render(values), status)

    def missing(self, what: str, remedy: str) -> HTMLResponse:
        """A page that says what is not there and what to do."""
        return self.page("missing.html", 404, what=what, remedy=remedy)


def make_app(
    lake: Lake,
    config: Path | None = None,
    hosts: frozenset[str] | None = LOOPBACK,
    clock: Callable[[], float] = time.time,
) -> FastAPI:
    """The console over a lake. `hosts` are the names it answers to; None means any."""
    console = Console(lake, Settings(config), clock)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        console.close()

    app = FastAPI(
        title="Understudy console",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    _add_pages(app, console)
    _add_files(app, console)
    _add_guard(app, hosts)
    return app


def _add_pages(app: FastAPI, console: Console) -> None:
    @app.get("/")
    def overview_page(window: str = "1h") -> Response:
        window = window if window in WINDOWS else "1h"
        return console.page("overview.html", overview=console.look(window), window=window)

    @app.get("/workload/{name}")
    def workload_page(name: str, window: str = "1h") -> Response:
        window = window if window in WINDOWS else "1h"
        state = console.look(window)
        view = next((view for view in state.workloads if view.name == name), None)
        if view is None:
            return console.missing(f"No workload {name}", "The overview lists the known ones.")
        return console.page("workload.html", overview=state, view=view, window=window)

    @app.get("/workload/{name}/disagreements")
    def disagreements(name: str, window: str = "1h") -> Response:
        try:
            found = console.disagreements(name, window)
        except LakeError as error:
            return console.page("disagreements.html", found=None, problem=str(error))
        return console.page("disagreements.html", found=found, problem=None)

    @app.get("/exchange/{exchange_id}")
    def exchange_page(exchange_id: str) -> Response:
        try:
            found = console.contents.exchange(exchange_id)
        except LakeError as error:
            return console.missing("The log cannot be read", str(error))
        if found is None:
            return console.missing(
                f"No exchange {exchange_id}",
                "It may not be stored yet: the collector writes a file every few seconds.",
            )
        return console.page("exchange.html", page=shown(found))


def _add_files(app: FastAPI, console: Console) -> None:
    @app.get("/reports/{workload}/{run}/{file}")
    def report(workload: str, run: str, file: str) -> Response:
        found = read_report(console.lake, workload, run, file)
        if found is None:
            return console.missing("No such report", "The workload's page lists its reports.")
        return Response(
            found[0], media_type=found[1], headers={"content-security-policy": REPORT_POLICY}
        )

    @app.get("/healthz")
    def healthz() -> Response:
        return PlainTextResponse("ok\n")

    @app.exception_handler(404)
    def unknown(_: Request, __: Exception) -> Response:
        return console.missing("No such page", "The overview leads to all of them.")

    app.mount("/static", StaticFiles(packages=[("deploy.console", "static")]))


def _add_guard(app: FastAPI, hosts: frozenset[str] | None) -> None:
    @app.middleware("http")
    async def guard(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        # A page elsewhere may point a name of its own at this address (DNS rebinding) and read
        # users' texts through the visitor's browser: so only known names are answered.
        name = urlsplit(f"//{request.headers.get('host', '')}").hostname
        if hosts is not None and name not in hosts:
            return PlainTextResponse(f"not the console's name: {name}; use localhost\n", 421)
        response = await call_next(request)
        response.headers.setdefault("content-security-policy", PAGE_POLICY)
        response.headers["x-content-type-options"] = "nosniff"
        response.headers["referrer-policy"] = "no-referrer"
        response.headers["cross-origin-opener-policy"] = "same-origin"
        response.headers.setdefault("cache-control", "no-cache")
        return response
