"""The page for Prometheus, with the two metrics of the real server that tell of its requests.

Names, labels and buckets are those of `servables/tensorflow/util.cc`: a request counts when it ends, and its
time only if it was answered.
"""

import threading
from bisect import bisect_left
from collections import Counter
from itertools import accumulate
from pathlib import Path
from typing import Final

from servesync.demo.standin.codes import Code
from servesync.demo.standin.config import BadConfig, check_fields
from servesync.domain.methods import Method
from servesync.serving.textformat import BadText, Word, parse

PAGE: Final = "/monitoring/prometheus/metrics"
LIMITS: Final = tuple(10 * 1.8**power for power in range(32))
"""The buckets in microseconds, but for the last, which has no limit."""
_NAME: Final = ":tensorflow:serving:request_"


def read_monitoring(path: Path) -> str | None:
    """Return the path of the page as a file of --monitoring_config_file says it; None if there is none.

    Raises:
        BadConfig: the file cannot be read, or is no valid MonitoringConfig.
    """
    try:
        outer = check_fields("the file", parse(path.read_text(encoding="utf-8")), {"prometheus_config"})
        inner = outer.get("prometheus_config", [])
        if not isinstance(inner, list):
            raise BadConfig("prometheus_config must be a message")
        found = check_fields("prometheus_config", inner, {"enable", "path"})
    except (OSError, UnicodeDecodeError, BadText) as error:
        raise BadConfig(f"cannot read {path}: {error}") from error
    return str(found.get("path") or PAGE) if found.get("enable") == Word("true") else None


class Monitoring:
    """Counts requests, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, Code]] = Counter()
        self._times: dict[tuple[str, Method], list[float]] = {}

    def ended(self, asked: tuple[str, Method], code: Code, seconds: float) -> None:
        """Count one request to a model by a method."""
        with self._lock:
            self._counts[asked[0], code] += 1
            if code is Code.OK:
                self._times.setdefault(asked, []).append(seconds * 1e6)

    def page(self) -> str:
        """Return the page."""
        with self._lock:
            lines = [f"# TYPE {_NAME}count counter"]
            lines += [
                f'{_NAME}count{{model_name="{model}",status="{code}"}} {count}'
                for (model, code), count in self._counts.items()
            ]
            lines.append(f"# TYPE {_NAME}latency histogram")
            for (model, method), times in self._times.items():
                lines += _histogram(model, method, times)
        return "\n".join(lines) + "\n"


def _histogram(model: str, method: Method, times: list[float]) -> list[str]:
    labels = f'model_name="{model}",API="{method.capitalize()}",entrypoint="REST"'
    falls_into = Counter(bisect_left(LIMITS, time) for time in times)
    sums = list(accumulate(falls_into[place] for place in range(len(LIMITS) + 1)))
    names = [*(f"{limit:g}" for limit in LIMITS), "+Inf"]
    rows = [
        f'{_NAME}latency_bucket{{{labels},le="{name}"}} {count}'
        for name, count in zip(names, sums, strict=True)
    ]
    total = f"{_NAME}latency_sum{{{labels}}} {sum(times):g}"
    return [*rows, total, f"{_NAME}latency_count{{{labels}}} {len(times)}"]
