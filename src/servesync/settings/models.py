"""Which models and versions the agent serves, and what each version must have."""

from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import Field, GetJsonSchemaHandler, GetPydanticSchema, field_validator, model_validator
from pydantic_core import core_schema

from servesync.domain.versions import MAX_VERSION, parse_model
from servesync.settings.base import Section

Dtype: TypeAlias = Literal[
    "float32", "float64", "int32", "uint8", "int16", "int8", "string", "complex64", "int64", "bool", "qint8",
    "quint8", "qint32", "bfloat16", "qint16", "quint16", "uint16", "complex128", "float16", "resource",
    "variant", "uint32", "uint64", "float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e4m3b11fnuz",
    "float8_e5m2fnuz", "int4", "uint4", "int2", "uint2", "float4_e2m1fn", "unknown",
]  # fmt: skip
"""TensorFlow's names in the order of DataType (types.proto), from 1; `unknown` is a newer one."""


ChannelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,62}$")]


class Versions(Section):
    """Which versions of a model are served: exactly one of the keys."""

    latest: Annotated[int, Field(ge=1, le=1000)] | None = None
    pin: Annotated[list[Annotated[int, Field(ge=0, le=MAX_VERSION)]], Field(min_length=1)] | None = None
    all: Literal[True] | None = None
    channel: Annotated[list[ChannelName], Field(min_length=1, max_length=10)] | None = None

    @field_validator("channel", mode="before")
    @classmethod
    def _one_or_more(cls, value: object) -> object:
        """Accept one name for a list of one."""
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(value is not None for value in (self.latest, self.pin, self.all, self.channel)) != 1:
            raise ValueError("needs exactly one of latest: N, pin: [N, ...], channel: NAME, all: true")
        return self


class TensorSpec(Section):
    """What is known of one input or output of a signature; `null` stands for what is not fixed."""

    dtype: Dtype
    shape: Annotated[list[Annotated[int, Field(ge=0)] | None], Field(max_length=254)] | None = None
    encoding: Literal["dense", "sparse", "composite"] = "dense"


class Signature(Section):
    """What one signature takes and gives, by name."""

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]


def _as_served_or_declared(value: object, declared: core_schema.ValidatorFunctionWrapHandler) -> object:
    """Keep the two words that are no table, so that a mistake in a table is named by its place alone."""
    return value if value in (None, "as_served") else declared(value)


def _json_schema_of_wish(
    declared: core_schema.CoreSchema, handler: GetJsonSchemaHandler
) -> dict[str, object]:
    """Describe the table and the two words that are none."""
    return {"anyOf": [{"type": "null"}, {"const": "as_served"}, handler(declared)]}


SignatureWish = Annotated[
    Literal["as_served"] | dict[str, Signature] | None,
    GetPydanticSchema(
        lambda _, handler: core_schema.no_info_wrap_validator_function(
            _as_served_or_declared, handler(dict[str, Signature])
        ),
        _json_schema_of_wish,
    ),
]


LabelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")]


class LabelTarget(Section):
    """Where a label points: to a version (a number alone says the same), or where a channel points."""

    version: Annotated[int, Field(ge=0, le=MAX_VERSION)] | None = None
    channel: LabelName | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_number(cls, value: object) -> object:
        return {"version": value} if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.version is None) == (self.channel is None):
            raise ValueError("needs a version's number or channel: NAME")
        return self


EVERY_MODEL: Final = "*"
"""The name of settings for every model of the store that has none of its own."""


class ModelSettings(Section):
    """One model to keep on the shelf, the signatures that each version must have, and its labels."""

    name: Annotated[str, Field(description="1 to 100 of A-Z a-z 0-9 . _ - and no dot first.")]
    versions: Versions = Versions(latest=1)
    required: bool = True
    signatures: SignatureWish = None
    labels: dict[LabelName, LabelTarget] | None = None

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels whose position matters for this model: those of its policy and of its labels."""
        named = [target.channel for target in (self.labels or {}).values() if target.channel is not None]
        return tuple(dict.fromkeys([*(self.versions.channel or ()), *named]))

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if value != EVERY_MODEL and parse_model(value) is None:
            raise ValueError(
                'must be 1 to 100 of A-Z a-z 0-9 . _ - and not start with a dot, or "*" for every other model'
            )
        return value

    @model_validator(mode="after")
    def _check_pin(self) -> Self:
        if self.name == EVERY_MODEL and self.versions.pin is not None:
            raise ValueError('versions: pin needs a model of its own, not "*"')
        return self
