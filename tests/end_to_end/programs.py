"""Three programs with the official OpenTelemetry SDK: `python -m tests.end_to_end.programs ROLE ...`.

storefront calls orders, orders calls payments: over HTTP with W3C trace context, each with spans and logs of its own,
exported by OTLP/HTTP. What happens to a request is in its header, and it happens deep in the tree. Each program writes
down what it made as lines of JSON: spans as the SDK ended them, logs as the SDK was given them.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TextIO

from opentelemetry import propagate, trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from tests.end_to_end.truth import SEVERITIES, UID, Log, Span, line

HOST = "127.0.0.1"
OUTSIDE = trace.set_span_in_context(trace.INVALID_SPAN, Context())  # an empty Context counts as none given
EXPORT_MILLISECONDS = 200
KIND_HEADER = "X-Request-Kind"
SLOW_SECONDS = 1.2
KINDS = (*["fine"] * 12, "error", "error-log", "slow", "gold", "canary", "probe", "warned", "chatty")
"""What becomes of request n: the kinds take turns. `chatty`: a program without context logs beside it."""


class Ledger:
    """The file that a program's facts go to; each line is complete when the span or log is on its way."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._lock = file, threading.Lock()

    def write(self, fact: Span | Log) -> None:
        """One fact."""
        with self._lock:
            self._file.write(line(fact) + "\n")
            self._file.flush()


class Witness(SpanProcessor):  # type: ignore[misc]
    """Writes every ended span down."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def on_end(self, span: ReadableSpan) -> None:
        """As it will be exported."""
        self._ledger.write(
            Span(
                trace_id=f"{span.context.trace_id:032x}",
                span_id=f"{span.context.span_id:016x}",
                parent=f"{span.parent.span_id:016x}" if span.parent else "",
                service=str(span.resource.attributes["service.name"]),
                name=span.name,
                start_ns=span.start_time or 0,
                end_ns=span.end_time or 0,
                error=span.status.status_code is trace.StatusCode.ERROR,
                attributes={key: str(value) for key, value in (span.attributes or {}).items()},
            )
        )


class Program:
    """One service: its SDK, its ledger, and the service behind it."""

    def __init__(self, service: str, collector: str, ledger: Ledger, behind: str) -> None:
        self.service, self._ledger, self._behind = service, ledger, behind
        resource = Resource.create({"service.name": service, "service.version": "1.0"})
        self.spans = TracerProvider(resource=resource)
        self.spans.add_span_processor(Witness(ledger))
        exporter = OTLPSpanExporter(f"{collector}/v1/traces")
        self.spans.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=EXPORT_MILLISECONDS))
        self.tracer = self.spans.get_tracer("shop")
        self.logs = LoggerProvider(resource=resource)
        sender = BatchLogRecordProcessor(
            OTLPLogExporter(f"{collector}/v1/logs"), schedule_delay_millis=EXPORT_MILLISECONDS
        )
        self.logs.add_log_record_processor(sender)
        self._logger = self.logs.get_logger("shop")
        self._written = 0
        self._counting = threading.Lock()

    def log(self, severity: str, body: str, context: Context | None = None) -> None:
        """Write a log record, in the current span unless `context` says otherwise."""
        with self._counting:
            self._written += 1
            uid = f"{self.service}-{self._written}"
        here = trace.get_current_span(context).get_span_context()
        now = time.time_ns()
        traced = here.is_valid
        trace_id, span_id = (f"{here.trace_id:032x}", f"{here.span_id:016x}") if traced else ("", "")
        self._ledger.write(Log(uid, self.service, severity, body, now, trace_id, span_id))
        self._logger.emit(
            timestamp=now,
            observed_timestamp=now,
            context=context,
            severity_number=SeverityNumber(SEVERITIES[severity]),
            severity_text=severity,
            body=body,
            attributes={UID: uid},
        )

    def handle(self, headers: Mapping[str, str]) -> None:
        """One request, as a server."""
        kind = headers.get(KIND_HEADER, "fine")
        with self.span(f"{self.service} request", trace.SpanKind.SERVER, propagate.extract(headers)) as span:
            if self.service == "storefront" and kind in ("canary", "probe"):
                span.set_attribute("release", "canary")
            self.log("INFO", f"{kind} request")
            if self._behind:
                self._call(kind)
            else:
                self._charge(kind)

    def _call(self, kind: str) -> None:
        with self.span(f"call of {self._behind.rsplit('/', 1)[-1]}", trace.SpanKind.CLIENT):
            headers = {KIND_HEADER: kind}
            propagate.inject(headers)
            with urllib.request.urlopen(urllib.request.Request(self._behind, headers=headers), timeout=30) as answer:
                answer.read()

    def _charge(self, kind: str) -> None:
        """The deepest span of all; what makes a request remarkable is here alone."""
        with self.span("charge card", trace.SpanKind.INTERNAL) as span:
            if kind == "error":
                span.set_status(trace.Status(trace.StatusCode.ERROR, "card refused"))
            elif kind == "error-log":
                self.log("ERROR", "ledger out of balance")
            elif kind == "slow":
                time.sleep(SLOW_SECONDS)  # the request *is* slow: nothing is waited for
            elif kind == "gold":
                span.set_attribute("customer.tier", "gold")
            elif kind == "probe":
                span.set_attribute("probe", "yes")
            elif kind == "warned":
                self.log("WARN", "second attempt")
            elif kind == "chatty":
                self.log("ERROR", "disk is nearly full", OUTSIDE)
        self.log("DEBUG", "charged")

    @contextmanager
    def span(self, name: str, kind: trace.SpanKind, context: Context | None = None) -> Any:
        """A current span."""
        with self.tracer.start_as_current_span(name, context=context, kind=kind) as span:
            yield span

    def close(self) -> None:
        """Export what is left. Raises if some of it was not taken."""
        flushed = self.spans.force_flush(), self.logs.force_flush()
        self.spans.shutdown()
        self.logs.shutdown()
        if not all(flushed):
            raise SystemExit(f"{self.service}: not everything was exported")


def serve(program: Program, port: int) -> None:
    """Answer requests until SIGTERM."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/health":
                program.handle(self.headers)  # type: ignore[arg-type]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *args: object) -> None:
            """Silence."""

    server = ThreadingHTTPServer((HOST, port), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()
    server.server_close()


def send(program: Program, count: int, rate: float) -> None:
    """The storefront: `count` requests of its own making, `rate` per second, none waiting for the one before."""
    began, threads = time.monotonic(), []
    for number in range(count):
        time.sleep(max(0.0, began + number / rate - time.monotonic()))
        headers = {KIND_HEADER: KINDS[number % len(KINDS)]}
        threads.append(threading.Thread(target=program.handle, args=(headers,)))
        threads[-1].start()
    for thread in threads:
        thread.join()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one program; 0 when all that it made has been exported."""
    parser = argparse.ArgumentParser(prog="python -m tests.end_to_end.programs", description=main.__doc__)
    parser.add_argument("service", choices=["storefront", "orders", "payments"])
    parser.add_argument("--collector", required=True, metavar="URL")
    parser.add_argument("--truth", required=True, type=Path, metavar="FILE")
    parser.add_argument("--behind", default="", metavar="URL", help="the next service")
    parser.add_argument("--port", type=int, help="serve here until SIGTERM")
    parser.add_argument("--count", type=int, help="send this many requests")
    parser.add_argument("--rate", type=float, default=20.0, help="requests per second")
    given = parser.parse_args(arguments)
    failures: list[str] = []
    logging.getLogger("opentelemetry").addHandler(_Collecting(failures))
    with given.truth.open("w") as file:
        program = Program(given.service, given.collector, Ledger(file), given.behind)
        if given.port is not None:
            serve(program, given.port)
        else:
            send(program, given.count, given.rate)
        program.close()
    print(*failures, sep="\n", file=sys.stderr)
    return 1 if failures else 0


class _Collecting(logging.Handler):
    """The SDK says only in its log that an export failed."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.append(record.getMessage())


if __name__ == "__main__":
    sys.exit(main())
