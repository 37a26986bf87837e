"""The command line, in the form that tensorflow_model_server takes: `--flag=value` or `--flag value`."""

from dataclasses import dataclass, fields
from typing import Final

_TRUE: Final = frozenset({"true", "t", "1", "yes", "y"})
_FALSE: Final = frozenset({"false", "f", "0", "no", "n"})


class BadFlag(ValueError):
    """A known flag has no value, or a value of the wrong type."""


@dataclass(frozen=True)
class Flags:
    """The flags that matter beside an agent, with the real server's defaults.

    Those that begin with `standin_` are the stand-in's own: `standin_load_delay_seconds` makes every attempt
    to load take that much longer, `standin_reload_blocks` answers no new configuration that comes over gRPC,
    `standin_die_with_parent` ends the process when its parent dies.
    """

    port: int = 8500
    grpc_socket_path: str = ""
    rest_api_port: int = 0
    rest_api_timeout_in_ms: int = 30_000
    model_name: str = "default"
    model_base_path: str = ""
    model_config_file: str = ""
    monitoring_config_file: str = ""
    model_config_file_poll_wait_seconds: float = 0.0
    file_system_poll_wait_seconds: float = 1.0
    max_num_load_retries: int = 5
    load_retry_interval_micros: int = 60_000_000
    num_load_threads: int = 0
    num_unload_threads: int = 0
    allow_version_labels_for_unavailable_models: bool = False
    enable_signature_method_name_check: bool = False
    version: bool = False
    standin_load_delay_seconds: float = 0.0
    standin_reload_blocks: bool = False
    standin_die_with_parent: bool = False


_KINDS: Final[dict[str, type]] = {item.name: type(item.default) for item in fields(Flags)}
USAGE: Final = "Flags:\n" + "\n".join(f"\t--{item.name}={item.default}" for item in fields(Flags))


def parse_flags(arguments: list[str]) -> tuple[Flags, list[str]]:
    """Return the flags, and the unknown arguments, which the real server only reports.

    A truth value is given as `--flag`, `--noflag` or `--flag=false`; the last of equal flags counts.

    Raises:
        BadFlag: a value has the wrong type, or is missing.
    """
    found: dict[str, object] = {}
    unknown: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        name, equals, text = word.removeprefix("-").removeprefix("-").partition("=")
        negated = name.removeprefix("no")
        if not word.startswith("-"):
            unknown.append(word)
        elif _KINDS.get(name) is bool:
            found[name] = _truth(name, text if equals else "true")
        elif name in _KINDS:
            if not (equals or rest):
                raise BadFlag(f"--{name} has no value")
            found[name] = _converted(name, text if equals else rest.pop(0))
        elif not equals and negated != name and _KINDS.get(negated) is bool:
            found[negated] = False
        else:
            unknown.append(word)
    return Flags(**found), unknown  # type: ignore[arg-type] # each was converted to its field's type


def _truth(name: str, text: str) -> bool:
    if text.lower() not in _TRUE | _FALSE:
        raise BadFlag(f"--{name} is true or false, not {text!a}")
    return text.lower() in _TRUE


def _converted(name: str, text: str) -> object:
    kind = _KINDS[name]
    try:
        return kind(text)
    except ValueError as error:
        raise BadFlag(f"--{name} wants a value of type {kind.__name__}, not {text!a}") from error
