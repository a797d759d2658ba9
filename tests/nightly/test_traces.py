"""Spans of a night, of its chunks and its calls: what they tell, whom they belong to, and that they hold no secret."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from rows import row, sendgrid

from lapse.commands.setup import Setup
from lapse.config import load
from lapse.exits import Exit, Stop
from lapse.fleet.chunk import Chunk, packed
from lapse.fleet.hands import Hands
from lapse.nightly.night import Nightly, Plan
from lapse.traces import Off, Sent, traces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from night import Folder
    from opentelemetry.sdk.trace import ReadableSpan

    from lapse.sandbox.saas import Saas

CALL = {
    "lapse.kind": "sendgrid",
    "lapse.attempt": 1,
    "http.request.method": "GET",
    "url.template": "/v3/scopes",
    "server.address": "127.0.0.1",
}


def tree(spans: tuple[ReadableSpan, ...]) -> dict[str, list[ReadableSpan]]:
    """Return the spans by their parent's name; all are of one trace."""
    names = {s.context.span_id: s.name for s in spans if s.context}
    assert len({s.context.trace_id for s in spans if s.context}) == 1
    found: dict[str, list[ReadableSpan]] = {}
    for s in spans:
        found.setdefault(names.get(s.parent.span_id, "?") if s.parent else "", []).append(s)
    return found


def told(span: ReadableSpan) -> dict[str, Any]:
    return {k: v for k, v in (span.attributes or {}).items() if k != "server.port"}


def test_a_night_and_its_calls_are_one_trace(folder: Folder, saas: Saas) -> None:
    saas.add("sendgrid", sendgrid(1), "live")
    folder.report(row(n) for n in range(2))
    kept = InMemorySpanExporter()
    with folder.ledger() as ledger:
        Nightly(Setup(load(folder.config)), ledger, Plan(quiet=True), spans=Sent(kept)).run()
    found = tree(kept.get_finished_spans())
    assert [s.name for s in found.pop("")] == ["night"]
    (calls,) = found.values()
    assert [s.name for s in calls] == ["GET sendgrid"] * 3
    assert {told(s)["http.response.status_code"] for s in calls} == {200, 401}
    assert all(told(s).items() >= CALL.items() for s in calls)
    assert all(s.start_time and s.end_time and 0 < s.end_time - s.start_time < 10e9 for s in calls)
    for secret in map(sendgrid, range(2)):
        assert not any(secret in s.to_json() or secret[5:20] in s.to_json() for s in kept.get_finished_spans())


def test_a_chunk_belongs_to_the_night_that_ordered_it(folder: Folder, saas: Saas) -> None:
    saas.add("sendgrid", sendgrid(1), "live")
    folder.report([row(1)])
    leader, worker = InMemorySpanExporter(), InMemorySpanExporter()
    with folder.ledger() as ledger:
        setup = Setup(load(folder.config))
        Nightly(setup, ledger, Plan(quiet=True, deadline=0.0), spans=Sent(leader)).run()
        folder.night(Exit.LIVE)
        (key,) = ledger.keys()
        run, spans = ledger.begin_run("nightly"), Sent(worker)
        (night,) = leader.get_finished_spans()
        context = night.context
        assert context is not None
        parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-01"
        hands = Hands(setup, ledger, spans=spans)
        hands.start()
        hands(packed(Chunk(run.id, run.started, "sendgrid", (key.id,), trace=parent)))
        hands.stop(1.0)
        assert hands._door is not None  # which a worker leaves to the end of its process
        asyncio.run_coroutine_threadsafe(hands._door.__aexit__(None, None, None), hands._loop).result(10)
    found = tree((night, *worker.get_finished_spans()))
    (chunk,) = found["night"]
    assert told(chunk) == {"lapse.run": run.id, "lapse.vendor": "sendgrid", "lapse.keys": 1, "lapse.look": 1}
    assert [s.name for s in found["chunk"]] == ["GET sendgrid"]


class Collector(ThreadingHTTPServer):
    """Takes spans as an OpenTelemetry collector does, or refuses with `status`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[bytes] = []
        self.status = 200


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.got.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(self.server.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # its own name
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_configured_collector_gets_them_and_its_refusal_costs_no_night(
    folder: Folder, saas: Saas, collector: Collector
) -> None:
    folder.also(f'[traces]\nendpoint = "http://127.0.0.1:{collector.server_port}/v1/traces"')
    saas.add("sendgrid", sendgrid(1), "live")
    folder.report([row(1)])
    assert "traces" not in folder.night(Exit.LIVE)["said"]
    (body,) = collector.got
    (of,) = ExportTraceServiceRequest.FromString(body).resource_spans
    assert {a.key: a.value.string_value for a in of.resource.attributes}["service.name"] == "lapse"
    assert sorted(s.name for s in of.scope_spans[0].spans) == ["GET sendgrid", "night"]
    assert sendgrid(1)[5:20].encode() not in body
    collector.status = 400
    assert "traces: 2 spans not taken by http://127.0.0.1" in folder.night(Exit.LIVE)["said"]


def test_an_address_in_the_clear_is_refused(folder: Folder) -> None:
    folder.also('[traces]\nendpoint = "http://collector.example.com/v1/traces"')
    with pytest.raises(Stop, match="neither https"):
        traces(load(folder.config))


def test_off_is_the_default_and_imports_nothing(folder: Folder) -> None:
    assert isinstance(traces(load(folder.config)), Off)
    code = (
        "import sys, lapse.nightly.night, lapse.fleet.hands, lapse.traces;"
        "print([m for m in sys.modules if m.startswith('opentelemetry')])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, text=True, capture_output=True, check=True)
    assert done.stdout.strip() == "[]"
