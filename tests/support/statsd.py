"""A stand-in for a StatsD server: takes lines by UDP, with tags as InfluxDB and Prometheus' exporter read them.

What it keeps is what Airflow's client sends; how an exporter passes it on to Prometheus is its own business.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import NamedTuple

_STOP = b"stop"


class Sent(NamedTuple):
    """One line: `c` for a counter, `g` for a gauge, `ms` for a timer; its tags, its value."""

    kind: str
    tags: dict[str, str]
    value: float


@dataclass
class StandInForStatsD:
    """What has come, by name of the metric."""

    port: int = 0
    metrics: dict[str, list[Sent]] = field(default_factory=dict)

    def environment(self, *, tags: bool = True) -> dict[str, str]:
        """Settings with which Airflow sends its metrics here, the tags behind each name or left away."""
        return {
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
            "AIRFLOW__METRICS__STATSD_PORT": str(self.port),
            "AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED": str(tags),
        }

    def take(self, packet: bytes) -> None:
        """Keep the lines of a packet."""
        for line in packet.decode().splitlines():
            name, _, said = line.partition(":")
            name, *tags = name.split(",")
            value, kind, *_ = said.split("|")
            self.metrics.setdefault(name, []).append(
                Sent(kind, dict(tag.split("=", 1) for tag in tags), float(value))  # type: ignore[misc]
            )

    def sent(self, metric: str, **tags: str) -> list[Sent]:
        """The lines of one of our metrics with these tags."""
        found = self.metrics.get(f"airflow.elt.{metric}", [])
        return [each for each in found if each.tags.items() >= tags.items()]


@contextmanager
def listening() -> Iterator[StandInForStatsD]:
    """A server for as long as the block lasts; at its end all that was sent to it before has been kept."""
    server = StandInForStatsD()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)  # nothing is lost while a test does more
        listener.bind(("127.0.0.1", 0))
        server.port = listener.getsockname()[1]

        def serve() -> None:
            while (packet := listener.recv(65_535)) != _STOP:
                server.take(packet)

        reader = Thread(target=serve, daemon=True)
        reader.start()
        try:
            yield server
        finally:
            listener.sendto(_STOP, ("127.0.0.1", server.port))
            reader.join(10)
