"""A stand-in for an OpenTelemetry collector: takes metrics by OTLP over HTTP, in the protocol's own protobuf messages.

What it keeps is what Airflow sends; how a collector passes it on to Prometheus is its own business.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, NamedTuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)


class Point(NamedTuple):
    """One point of a metric: `sum`, `gauge` or `histogram`, its attributes, its value or sum."""

    kind: str
    attributes: dict[str, str]
    value: float


@dataclass
class StandInForACollector:
    """What has come, by name of the metric."""

    port: int = 0
    metrics: dict[str, list[Point]] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """Settings with which Airflow sends its metrics here."""
        return {
            "AIRFLOW__METRICS__OTEL_ON": "True",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"http://127.0.0.1:{self.port}/v1/metrics",
            "OTEL_METRIC_EXPORT_INTERVAL": "2000",
        }

    def take(self, body: bytes) -> None:
        """Keep the points of a request."""
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    kind = str(metric.WhichOneof("data"))
                    for point in getattr(metric, kind).data_points:
                        attributes = {each.key: each.value.string_value for each in point.attributes}
                        value = point.sum if "histogram" in kind else point.as_int or point.as_double
                        self.metrics.setdefault(metric.name, []).append(
                            Point("histogram" if "histogram" in kind else kind, attributes, float(value))
                        )


@contextmanager
def collecting() -> Iterator[StandInForACollector]:
    """A collector for as long as the block lasts."""
    collector = StandInForACollector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            collector.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            answer = ExportMetricsServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.port = server.server_port
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
