"""The messages of the trial process, one JSON object a line; each is checked as a stranger's would be."""

from typing import Annotated, Final, Literal, TypeVar

from pydantic import Field, ValidationError

from servesync.settings import Section, Signature

MAX_BYTES: Final = 4 << 20

Text = Annotated[str, Field(max_length=4000)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Started(Section):
    """TensorFlow is imported, and the model is untouched: the model causes whatever fails from now on."""

    tensorflow: Text
    network: Literal["isolated", "not isolated"]


class Step(Section):
    """The step that begins now. If the process dies, it died in the last one. Requests count from 1."""

    doing: Literal["import", "load", "request"]
    library: Text = ""
    request: Count = 0


class Difference(Section):
    """The worst element of a wrong output of a golden request; `difference`: None if it is no number."""

    request: Count
    output: Text
    place: Annotated[list[Count], Field(max_length=254)]
    found: Text
    expected: Text
    difference: float | None
    allowed: float
    wrong: Count
    """How many elements of this output differ too much."""


class Answer(Section):
    """The result. `memory`: it failed for lack of memory; `request`: the one that failed, from 1, or 0."""

    outcome: Literal["loaded", "no_tensorflow", "no_library", "load_failed", "request_failed"]
    message: Text = ""
    library: Text = ""
    memory: bool = False
    request: Count = 0
    signatures: dict[str, Signature] = Field(default_factory=dict)
    differences: list[Difference] = Field(default_factory=list)
    load_seconds: Seconds = 0.0
    cpu_seconds: Seconds = 0.0
    peak_memory_bytes: Count = 0


def argument_name(name: str) -> str:
    """Return an input's name as a Python argument; TensorFlow renames some inputs so, and keeps others."""
    plain = "".join(character if character.isalnum() else "_" for character in name)
    return plain if plain[:1].isalpha() else f"arg_{plain}"


Line = TypeVar("Line", Started, Step, Answer)


def parse_line(kind: type[Line], line: bytes) -> Line | None:
    """Return the message on one line; None if the line is not a message of this kind."""
    try:
        return kind.model_validate_json(line, strict=True)
    except ValidationError:
        return None
