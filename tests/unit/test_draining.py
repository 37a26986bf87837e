"""When a model server may be stopped: what its page and its connections say, and how long that takes."""

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, repeat
from pathlib import Path

import pytest

from servesync.demo.standin.codes import Code
from servesync.demo.standin.config import BadConfig
from servesync.demo.standin.monitoring import Monitoring, read_monitoring
from servesync.domain.methods import Method
from servesync.serving.draining import Look, Page, await_idle, connections_to, read_page

PAGE = r"""# TYPE :tensorflow:core:graph_runs counter
:tensorflow:core:graph_runs{} 8
# TYPE :tensorflow:serving:request_count counter
:tensorflow:serving:request_count{model_name="m",status="OK"} 5
:tensorflow:serving:request_count{model_name="n \"x\",le=\"1\"",status="INVALID_ARGUMENT"} 2
# TYPE :tensorflow:serving:request_latency histogram
:tensorflow:serving:request_latency_bucket{model_name="m",API="Predict",entrypoint="GRPC",le="10"} 0
:tensorflow:serving:request_latency_bucket{model_name="m",API="Predict",entrypoint="GRPC",le="1.27482e+06"} 3
:tensorflow:serving:request_latency_bucket{model_name="m",API="Predict",entrypoint="GRPC",le="2.29468e+06"} 4
:tensorflow:serving:request_latency_bucket{model_name="m",API="Predict",entrypoint="GRPC",le="+Inf"} 4
:tensorflow:serving:request_latency_sum{model_name="m",API="Predict",entrypoint="GRPC"} 3.1e+06
:tensorflow:serving:request_latency_count{model_name="m",API="Predict",entrypoint="GRPC"} 4
:tensorflow:serving:request_latency_bucket{model_name="m",API="Predict",entrypoint="REST",le="10"} 1
:tensorflow:serving:request_latency_bucket{model_name="m",API="Predict",entrypoint="REST",le="+Inf"} 1
:tensorflow:serving:request_latency_count{model_name="m",API="Predict",entrypoint="REST"} 1
"""
ROW = "   0: 0100007F:{port} 0100007F:C350 {state} 00000000:00000000 00:00000000 00000000 1000 0 1 1\n"


class Clock:
    """Time that passes only while somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def pause(self, seconds: float) -> None:
        """Wait."""
        self.now += seconds


def waited(looks: Iterable[Look], seconds: float = 20.0) -> tuple[str, float]:
    """Return what the command would say, and after how many seconds; the last of the looks stays."""
    clock, (*first, last) = Clock(), looks
    seen = chain(first, repeat(last))
    return await_idle(lambda: next(seen), seconds, lambda: clock.now, clock.pause), clock.now


def asked(ended: int, slowest: float = 0.1, connections: int | None = 1) -> Look:
    """Return a look at a server whose page can be read."""
    return Look(Page(ended, slowest), connections)


def test_the_page_tells_how_many_have_ended_and_how_long_they_took() -> None:
    """Over all models, states and ways; a name that looks like a bucket is none."""
    found = read_page(PAGE)

    assert found.ended == 5 + 2 + 4 + 1
    assert found.slowest_seconds == pytest.approx(2.29468)
    assert read_page("").slowest_seconds == 0


def test_beyond_the_last_limit_nothing_is_long_enough() -> None:
    """The last bucket has no limit."""
    line = ':tensorflow:serving:request_latency_bucket{model_name="m",le="%s"} %d'
    assert read_page("\n".join([line % ("10", 0), line % ("+Inf", 1)])).slowest_seconds == math.inf


def test_the_stand_ins_page_is_read() -> None:
    """A failed request counts, but its time does not."""
    monitoring = Monitoring()
    monitoring.ended(("m", Method.PREDICT), Code.OK, 3.0)
    monitoring.ended(("m", Method.PREDICT), Code.INVALID_ARGUMENT, 100.0)

    found = read_page(monitoring.page())
    monitoring.ended(("other", Method.CLASSIFY), Code.OK, 0.0)

    assert 3.0 < found.slowest_seconds < 3.0 * 1.8
    assert read_page(monitoring.page()).ended > found.ended


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('prometheus_config { enable: true, path: "/metrics" }', "/metrics"),
        ("prometheus_config { enable: true }", "/monitoring/prometheus/metrics"),
        ("prometheus_config { enable: false }", None),
        ("", None),
    ],
)
def test_the_stand_in_takes_the_real_servers_file(text: str, path: str | None, tmp_path: Path) -> None:
    """By its schema."""
    file = tmp_path / "monitoring.config"
    file.write_text(text)

    assert read_monitoring(file) == path


def test_the_stand_in_refuses_what_the_real_server_would(tmp_path: Path) -> None:
    """Unknown fields, and a file that is not there."""
    file = tmp_path / "monitoring.config"
    with pytest.raises(BadConfig):
        read_monitoring(file)
    file.write_text("prometheus_config { on: true }")
    with pytest.raises(BadConfig):
        read_monitoring(file)


def test_only_open_connections_to_the_servers_ports_count(tmp_path: Path) -> None:
    """Of both kinds of addresses; not those that are ending, nor a client's own end."""
    rows = [("2135", "0A"), ("2135", "01"), ("2135", "06"), ("C350", "01"), ("2134", "01")]
    (tmp_path / "tcp").write_text("head\n" + "".join(ROW.format(port=p, state=s) for p, s in rows))
    (tmp_path / "tcp6").write_text("head\n" + ROW.format(port="2134", state="01"))

    assert connections_to({8501}, tmp_path) == 1
    assert connections_to({8500, 8501}, tmp_path) == 3


def test_who_does_not_see_the_server_knows_of_no_connection(tmp_path: Path) -> None:
    """In another network namespace none is open, and that would mean nothing."""
    (tmp_path / "tcp").write_text("head\n" + ROW.format(port="C350", state="0A"))

    assert connections_to({8501}, tmp_path) is None
    assert connections_to({8501}, tmp_path / "nothing") is None


def test_without_load_it_is_over_at_the_second_look() -> None:
    """However long requests take otherwise, and with or without the page."""
    for look in (asked(7, 60, connections=0), Look(None, 0)):
        said, seconds = waited([look])
        assert said.startswith("no load")
        assert seconds < 1


def test_who_is_connected_may_be_waiting() -> None:
    """For as long as the slowest request took; each that ends begins that time anew."""
    said, seconds = waited([asked(1, 3.0)])
    assert said.startswith("drained: no request has ended for 3.0 s")
    assert 3.0 <= seconds < 3.5

    later = [asked(1, 3.0)] * 10 + [asked(2, 3.0)]
    assert waited(later)[1] > 4.5


def test_where_requests_are_fast_a_second_is_waited() -> None:
    """A histogram without anything in it says nothing."""
    said, seconds = waited([asked(0, 0.0)])
    assert said.startswith("drained")
    assert 1.0 <= seconds < 1.5


def test_it_is_over_when_the_last_one_has_left() -> None:
    """Not only after the quiet time."""
    said, seconds = waited([asked(1, 9.0), asked(1, 9.0), asked(2, 9.0, 0), asked(2, 9.0, 0)])
    assert said.startswith("no load")
    assert seconds < 1


def _counting() -> Iterator[Look]:
    yield from (asked(number) for number in range(1000))


@pytest.mark.parametrize(
    ("looks", "advice"),
    [
        (_counting, False),
        (lambda: [asked(1, 60.0)], False),
        (lambda: [asked(1, math.inf, None)], False),
        (lambda: [Look(None, 2)], True),
        (lambda: [Look(None, None)], True),
    ],
)
def test_the_time_limit_holds(looks: Callable[[], Iterable[Look]], advice: bool) -> None:  # noqa: FBT001
    """Where requests never end, where one may take longer, and where nothing can be seen: with advice."""
    said, seconds = waited(looks(), 10.0)

    assert said.startswith("the time is over (10 s)")
    assert seconds == pytest.approx(10.0)
    assert ("--monitoring_config_file" in said) == advice


def test_from_another_machine_the_counter_decides() -> None:
    """The page can be read, the connections cannot be seen: never at once."""
    said, seconds = waited([asked(1, 2.0, None)])
    assert said.startswith("drained")
    assert seconds >= 2.0


def test_a_server_that_is_gone_is_not_waited_for() -> None:
    """At the first look, or after some."""
    gone = Look(None, None, is_down=True)
    assert waited([gone]) == ("the server does not listen", 0.0)
    assert waited([asked(1), gone])[0] == "the server does not listen"
