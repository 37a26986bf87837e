"""The routes. All are read-only but `/sync`, which only wakes the deciding thread, and `/drain`."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from servesync.admin.agent_status import AgentStatus
from servesync.admin.gauges import register
from servesync.admin.guard import Guard, refuse_change
from servesync.admin.page import Page
from servesync.admin.probes import AskServer, Verdict, draining, livez, readyz, startupz
from servesync.admin.report import report
from servesync.settings import Admin

PROBE_SECONDS: Final = 8.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What the application shows and may do. `settings` returns those in force at the moment."""

    agent_status: AgentStatus
    settings: Callable[[], Admin]
    ask_server: AskServer
    sync: Callable[[], None]
    drain: Callable[[bool], None]
    lines_dropped: Callable[[], int]


class _Endpoints:
    """One method for each route."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._agent_status = parts.agent_status
        self._registry = register(parts.agent_status, parts.lines_dropped)
        self._page = Page()
        self._renderer = ThreadPoolExecutor(1, "servesync-renders")  # one: the agent shares the processor

    async def live(self, _: Request) -> Response:
        return _answer(livez(self._agent_status))

    async def started(self, _: Request) -> Response:
        return _answer(startupz(self._agent_status.snapshot))

    async def ready(self, _: Request) -> Response:
        leaving = draining(self._agent_status.draining_since_at)
        if not leaving.good:
            return _answer(leaving)
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                asked = asyncio.to_thread(readyz, self._agent_status.snapshot, self._parts.ask_server)
                return _answer(await asked)
        except TimeoutError:
            return _answer(Verdict((f"the model server has not answered within {PROBE_SECONDS:g} s",)))

    async def status(self, _: Request) -> Response:
        return await self._rendered(lambda: JSONResponse(self._report()))

    async def page(self, _: Request) -> Response:
        def render() -> Response:
            text, policy = self._page.whole(self._report())
            return HTMLResponse(text, headers={"content-security-policy": policy})

        return await self._rendered(render)

    async def live_part(self, _: Request) -> Response:
        return await self._rendered(lambda: HTMLResponse(self._page.live(self._report())))

    async def metrics(self, request: Request) -> Response:
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        return await self._rendered(lambda: Response(encode(self._registry), headers={"content-type": kind}))

    def _report(self) -> dict[str, Any]:
        return report(self._agent_status, self._parts.settings())

    async def _rendered(self, work: Callable[[], Response]) -> Response:
        """Do what takes long for a thousand models beside the loop: probes are answered meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self._renderer, work)

    async def sync(self, request: Request) -> Response:
        return self._changed(request, self._parts.sync)

    async def drain(self, request: Request) -> Response:
        return self._changed(request, lambda: self._parts.drain(request.method == "POST"))

    def _changed(self, request: Request, change: Callable[[], None]) -> Response:
        refusal = refuse_change(request, self._parts.settings().token_file)
        if refusal is not None:
            code, text = refusal
            return JSONResponse({"error": text}, code)
        change()
        return JSONResponse({"accepted": True}, 202)


def build_app(parts: Parts) -> ASGIApp:
    """Return the application; it holds no state of its own."""
    endpoints = _Endpoints(parts)
    routes = [
        Route("/", endpoints.page),
        Route("/live", endpoints.live_part),
        Route("/livez", endpoints.live),
        Route("/startupz", endpoints.started),
        Route("/readyz", endpoints.ready),
        Route("/status", endpoints.status),
        Route("/metrics", endpoints.metrics),
        Route("/sync", endpoints.sync, methods=["POST"]),
        Route("/drain", endpoints.drain, methods=["POST", "DELETE"]),
    ]
    return Guard(Starlette(routes=routes), lambda: parts.settings().allowed_hosts)


def _answer(verdict: Verdict) -> Response:
    return JSONResponse({"ok": verdict.good, "missing": list(verdict.missing)}, 200 if verdict.good else 503)
