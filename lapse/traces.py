"""OpenTelemetry traces of nights: a span for the night, one for each chunk of a fleet's, one for each provider call.

Off unless `[traces] endpoint` is set, and nothing is imported then. The packages are the extra `lapse[otel]`. What is
told is what an observer of the one way out hears (`verifier.egress.Exchange`): templates of paths, hosts, statuses;
no secret, no key's id, nothing of a reply. The SDK's own variables (OTEL_EXPORTER_OTLP_HEADERS, OTEL_TRACES_SAMPLER,
OTEL_BSP_MAX_QUEUE_SIZE, OTEL_RESOURCE_ATTRIBUTES, …) hold as everywhere.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, cast

from lapse import __version__
from lapse.exits import Exit, Stop
from verifier.words import plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    from lapse.config import Config
    from verifier.egress import Exchange

LOOPBACK = ("http://127.0.0.1:", "http://localhost:", "http://[::1]:")
FLUSH_MS = 5000
"""How long the end of a night waits for what is not sent yet."""


class Traces(Protocol):
    """Who keeps spans. `parent` is a W3C `traceparent`, empty for none."""

    def span(self, name: str, told: Mapping[str, str | int], parent: str = "") -> Any:  # noqa: ANN401  # a context manager
        """Return a context manager of a span; it gives the `traceparent` that makes others its children."""
        ...

    def call(self, exchange: Exchange, parent: str) -> None:
        """Note one call, which has just come to its end."""
        ...

    def close(self) -> str:
        """Send what is left; return a sentence if anything was lost."""
        ...


class Off:
    """Keeps nothing, at no cost."""

    @contextmanager
    def span(self, name: str, told: Mapping[str, str | int], parent: str = "") -> Iterator[str]:  # noqa: ARG002  # as above
        """Give no parent."""
        yield ""

    def call(self, exchange: Exchange, parent: str) -> None:
        """Note nothing."""

    def close(self) -> str:
        """Nothing is lost."""
        return ""


class Sent:
    """Hands spans to an exporter, in batches and from a thread of its own."""

    def __init__(self, exporter: SpanExporter) -> None:
        """Take whoever sends them."""
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)  # what is lost is said once, by `close`
        self._exporter = _Watched(exporter)
        named = Resource.create({"service.name": "lapse", "service.version": __version__})
        self._provider = TracerProvider(resource=named, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(cast("SpanExporter", self._exporter)))
        self._tracer = self._provider.get_tracer("lapse", __version__)

    @contextmanager
    def span(self, name: str, told: Mapping[str, str | int], parent: str = "") -> Iterator[str]:
        """Keep a span; one that ends by an error says so by its type alone."""
        from opentelemetry.trace import Status, StatusCode

        with self._tracer.start_as_current_span(
            name, _context(parent), attributes=dict(told), record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield _parent(span)
            except BaseException as e:
                span.set_status(Status(StatusCode.ERROR, type(e).__name__))
                raise

    def call(self, exchange: Exchange, parent: str) -> None:
        """Keep a span of a call that ended now."""
        from opentelemetry.trace import SpanKind, Status, StatusCode

        call, end = exchange.call, time.time_ns()
        told: dict[str, str | int] = {
            "lapse.kind": call.kind,
            "lapse.attempt": exchange.attempt,
            "http.request.method": call.method,
            "url.template": call.path,
            "server.address": exchange.host,
            "server.port": exchange.port,
        }
        if exchange.status is not None:
            told["http.response.status_code"] = exchange.status
        span = self._tracer.start_span(
            f"{call.method} {call.kind}", _context(parent), SpanKind.CLIENT, attributes=told,
            start_time=end - int(exchange.elapsed * 1e9),
        )  # fmt: skip
        if exchange.trouble is not None:
            span.set_attribute("error.type", exchange.trouble.value)
            span.set_status(Status(StatusCode.ERROR))
        span.end(end)

    def close(self) -> str:
        """Send what is left, for a few seconds at most."""
        self._provider.force_flush(FLUSH_MS)
        self._provider.shutdown()
        lost = self._exporter.lost
        return f"traces: {plural(lost, 'span')} not taken by {self._exporter.name}" if lost else ""


class _Watched:
    """An exporter that counts what was not taken."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.name = getattr(exporter, "_endpoint", type(exporter).__name__)
        self.lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        from opentelemetry.sdk.trace.export import SpanExportResult

        try:
            got = self._exporter.export(spans)
        except Exception:  # noqa: BLE001  # whatever it is: traces cost no night
            got = SpanExportResult.FAILURE
        if got is not SpanExportResult.SUCCESS:
            self.lost += len(spans)
        return got

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def traces(config: Config) -> Traces:
    """Return who keeps the spans of this configuration; a `Stop` where the extra is not installed."""
    address = config.traces.endpoint
    if not address:
        return Off()
    if not address.startswith(("https://", *LOOPBACK)):
        raise Stop(f"traces.endpoint: {address} is neither https:// nor on this machine", Exit.USAGE)
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise Stop("traces.endpoint needs an extra: pip install 'lapse[otel]'", Exit.USAGE) from None
    return Sent(OTLPSpanExporter(endpoint=address, timeout=FLUSH_MS / 1000))


def _context(parent: str) -> Any:  # noqa: ANN401  # the SDK's own
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": parent}, Context()) if parent else Context()


def _parent(span: Any) -> str:  # noqa: ANN401  # same
    from opentelemetry.trace import set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier, set_span_in_context(span))
    return carrier.get("traceparent", "")
