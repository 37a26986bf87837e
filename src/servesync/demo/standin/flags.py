"""The command line, in the form that tensorflow_model_server takes: `--flag=value` or `--flag value`."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Flags:
    """The flags that matter beside an agent, with the real server's defaults.

    `standin_load_delay_seconds` is the stand-in's own: every load takes that much longer.
    """

    port: int = 8500
    rest_api_port: int = 0
    model_name: str = "default"
    model_base_path: str = ""
    model_config_file: str = ""
    model_config_file_poll_wait_seconds: float = 0
    file_system_poll_wait_seconds: float = 1
    max_num_load_retries: int = 5
    load_retry_interval_micros: int = 60_000_000
    num_load_threads: int = 0
    num_unload_threads: int = 0
    allow_version_labels_for_unavailable_models: bool = False
    standin_load_delay_seconds: float = 0


def parse_flags(arguments: list[str]) -> tuple[Flags, list[str]]:
    """Return the flags, and those that nobody knows: the real server names them and goes on.

    Raises:
        ValueError: a value has the wrong type.
    """
    defaults = asdict(Flags())
    kinds = {name: type(value) for name, value in defaults.items()}
    found: dict[str, Any] = {}
    unknown = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("-") or name not in kinds:
            unknown.append(word)
            continue
        kind = kinds[name]
        if not equals:
            value = "true" if kind is bool else rest.pop(0) if rest else ""
        found[name] = value.lower() in {"true", "1", "yes"} if kind is bool else kind(value)
    return Flags(**found), unknown
