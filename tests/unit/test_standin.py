# ruff: noqa: E501 (a table is read by its rows)
"""The stand-in's rules, in made-up time: what the real server was seen to do."""

from dataclasses import dataclass, field

import pytest

from servesync.demo.standin.config import BadConfig, Policy, parse_config
from servesync.demo.standin.flags import parse_flags
from servesync.demo.standin.manager import Load, Manager, State, Unload
from servesync.demo.standin.scan import aspired, parse_name

LATEST, ALL = Policy("latest", 1), Policy("all")


@dataclass
class Box:
    """A manager with instant loads; `bad` versions fail. `disk` is what each poll sees."""

    policy: Policy = ALL
    bad: set[int] = field(default_factory=set)
    manager: Manager = field(default_factory=Manager)
    story: list[str] = field(default_factory=list)

    def poll(self, *disk: int, ticks: int = 10) -> dict[int, str]:
        """List the base path once and let everything come to rest; return the states."""
        self.manager.aspire("m", {n: f"/m/{n}" for n in aspired([str(n) for n in disk], self.policy)})
        for _ in range(ticks):
            self.tick()
        return {n: status.state.value for n, status in self.manager.statuses("m").items()}

    def tick(self) -> None:
        """Do one thing."""
        match self.manager.tick():
            case Load(_, version):
                self.story.append(f"load {version}")
                if version in self.bad:
                    self.manager.failed("m", version, "DATA_LOSS", "bad")
                else:
                    self.manager.loaded("m", version)
            case Unload(_, version):
                self.story.append(f"unload {version}")
                self.manager.unloaded("m", version)
            case None:
                pass

    def serving(self) -> list[int]:
        """Return what serves."""
        return self.manager.available("m")


def test_a_new_version_comes_before_the_old_one_goes() -> None:
    """O8: load 5, then unload 4, also when 4 vanishes in the same poll."""
    box = Box(LATEST)
    box.poll(4)
    box.poll(4, 5)

    assert box.story == ["load 4", "load 5", "unload 4"]


def test_a_failed_version_is_never_tried_again_under_latest() -> None:
    """O7: removed, absent for polls, and back: nothing; only a higher number helps."""
    box = Box(LATEST, bad={5})
    box.poll(4)
    box.poll(4, 5)
    box.poll(4)
    box.poll(4)
    box.bad.clear()
    box.poll(4, 5)
    assert box.story == ["load 4", "load 5"]
    assert box.serving() == [4]

    box.poll(4, 5, 6)
    assert box.serving() == [6]


def test_a_failed_version_that_was_gone_is_tried_again_under_all() -> None:
    """O7: under `all` an absence of one poll is enough."""
    box = Box(ALL, bad={5})
    box.poll(4, 5)
    box.bad.clear()
    box.poll(4, 5)
    assert box.serving() == [4]

    box.poll(4)
    box.poll(4, 5)
    assert box.serving() == [4, 5]


def test_an_emptied_directory_unloads_everything() -> None:
    """O5: no guard."""
    box = Box(ALL)
    box.poll(1, 2)
    box.poll()

    assert box.serving() == []
    assert box.poll() == {2: "END", 1: "END"}


def test_under_latest_the_only_one_removed_is_unloaded() -> None:
    """O5, for `latest 1`."""
    box = Box(LATEST)
    box.poll(1)
    box.poll()

    assert box.serving() == []


def test_rollback_loads_the_older_one_first() -> None:
    """O9: removing the newer one loads the older, then unloads the newer."""
    box = Box(LATEST)
    box.poll(4, 5)
    box.poll(4)

    assert box.story == ["load 5", "load 4", "unload 5"]


def test_the_old_one_stays_when_the_new_one_fails_even_without_its_directory() -> None:
    """O8: what serves is in memory."""
    box = Box(LATEST, bad={5})
    box.poll(4)
    box.poll(5)

    assert box.serving() == [4]
    assert box.poll(5)[5] == "END"


def test_under_all_the_highest_is_loaded_first() -> None:
    """One action a tick, the highest new version first."""
    box = Box(ALL)
    box.poll(1, 2, 3)

    assert box.story == ["load 3", "load 2", "load 1"]


def test_latest_two_moves_in_the_order_of_the_real_server() -> None:
    """{1, 2} serve, 3 and 4 appear: unload 1, load 4, unload 2, load 3."""
    box = Box(Policy("latest", 2))
    box.poll(1, 2)
    box.story.clear()
    box.poll(1, 2, 3, 4)

    assert box.story == ["unload 1", "load 4", "unload 2", "load 3"]


def test_vanishing_and_returning_between_two_polls_is_not_noticed() -> None:
    """Only polls count."""
    box = Box(ALL)
    box.poll(1)
    box.poll(1)

    assert box.story == ["load 1"]


def test_the_status_forgets_nothing() -> None:
    """Versions that are gone stay listed as END, highest first."""
    box = Box(ALL)
    box.poll(1)
    box.poll(2)

    assert list(box.poll(2)) == [2, 1]


def test_the_start_fails_when_the_highest_version_does() -> None:
    """O3: a good older version does not help."""
    box = Box(ALL, bad={2})
    box.poll(1, 2)

    assert box.manager.startup(["m"]) is False


def test_the_start_waits_for_every_model() -> None:
    """O4: one model without a version keeps the port closed."""
    box = Box(ALL)
    box.poll(1)

    assert box.manager.startup(["m"]) is True
    assert box.manager.startup(["m", "other"]) is None


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("7", 7), ("007", 7), ("+7", 7), (" 7", 7), ("7 ", 7), ("-3", -3), ("-0", 0), ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", None), ("v7", None), ("7.tmp", None), (".7", None), ("7_", None), ("0x7", None),
        ("1e3", None), ("7.0", None), ("", None), ("tmp-5", None), (".staging", None), ("1_0", None), ("\u0661", None),
    ],
)  # fmt: skip
def test_names(name: str, number: int | None) -> None:
    """O1: what the scanner takes for a version."""
    assert parse_name(name) == number


def test_two_names_of_one_number() -> None:
    """O1: `latest` takes `1`, `all` takes `0000001`."""
    assert aspired(["1", "0000001"], LATEST) == {1: "1"}
    assert aspired(["1", "0000001"], ALL) == {1: "0000001"}


def test_specific_takes_what_is_there() -> None:
    """Missing ones are left out."""
    assert aspired(["1", "2"], Policy("specific", versions=(2, 9))) == {2: "2"}


CONFIG = """
# a comment
model_config_list: {
  config { name: "a" base_path: '/models/a' model_platform: "tensorflow" }
  config: <
    name: "b", base_path: "/models/b"; model_platform: "tensorflow"
    model_version_policy { specific { versions: 3 versions: 5 } }
    version_labels { key: "stable" value: 3 }
  >
}
"""


def test_a_config_is_read() -> None:
    """Both ways to write messages, comments, separators, the default policy."""
    first, second = parse_config(CONFIG)

    assert first.policy == Policy("latest", 1)
    assert second.policy == Policy("specific", versions=(3, 5))
    assert second.labels == {"stable": 3}


@pytest.mark.parametrize(
    "text",
    [
        'model_config_list { config { nam: "a" } }',
        'model_config_list { config { name: "a" base_path: "rel" model_platform: "tensorflow" } }',
        'model_config_list { config { name: "a" base_path: "/a" } }',
        "model_config_list {",
        "model_config_list }",
        "models { }",
        "%",
    ],
)
def test_a_bad_config_is_refused_whole(text: str) -> None:
    """An unknown field is as bad as a missing brace."""
    with pytest.raises(BadConfig):
        parse_config(text)


def test_flags_in_both_forms() -> None:
    """`--flag=value` and `--flag value`; unknown ones are named and tolerated."""
    flags, unknown = parse_flags(["--rest_api_port=8501", "--max_num_load_retries", "0", "--no_such_flag=1"])

    assert (flags.rest_api_port, flags.max_num_load_retries) == (8501, 0)
    assert unknown == ["--no_such_flag=1"]


def test_states_have_the_names_of_the_real_ones() -> None:
    """The names are what the agent reads."""
    assert set(State) == {"START", "LOADING", "AVAILABLE", "UNLOADING", "END"}
