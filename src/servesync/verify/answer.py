"""What the trial process tells, one JSON object a line, and how its words are read: as a stranger's."""

from typing import Annotated, Final, Literal, TypeVar

from pydantic import Field, ValidationError

from servesync.settings import Section, Signature

MAX_BYTES: Final = 4 << 20

Text = Annotated[str, Field(max_length=4000)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Started(Section):
    """TensorFlow is there, and the model has not been touched: what happens from now on is its doing."""

    tensorflow: Text
    network: Literal["isolated", "not isolated"]


class Step(Section):
    """What the process does next; the last one told says what it died of. Requests count from 1."""

    doing: Literal["import", "load", "request"]
    library: Text = ""
    request: Count = 0


class Difference(Section):
    """One output of one golden request that is not as expected: its worst element. `null`: not a number."""

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
    """How it ended. `memory` says that an error was the lack of it; `request` counts from 1, 0 for none."""

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
    """Return the form that TensorFlow's Python side gives some inputs' names, where others keep theirs."""
    plain = "".join(character if character.isalnum() else "_" for character in name)
    return plain if plain[:1].isalpha() else f"arg_{plain}"


Line = TypeVar("Line", Started, Step, Answer)


def parse_line(kind: type[Line], line: bytes) -> Line | None:
    """Return the object on one line; None if it is none of this kind."""
    try:
        return kind.model_validate_json(line, strict=True)
    except ValidationError:
        return None
