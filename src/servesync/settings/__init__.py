"""The settings of one agent: one YAML file, checked once, frozen, with the unit in every name."""

from collections import Counter
from typing import Annotated, Self

from pydantic import Field, model_validator

from servesync.settings.admin import Admin, Log, Prices
from servesync.settings.base import GIB, MIB, Section
from servesync.settings.checks import Level, LoadLimits, Scrub, Verify
from servesync.settings.models import (
    EVERY_MODEL,
    Dtype,
    LabelTarget,
    ModelSettings,
    Signature,
    TensorSpec,
    Versions,
)
from servesync.settings.serving import Memory, Reserve, Serving
from servesync.settings.store import Fetch, Limits, Poll, Store

__all__ = [
    "EVERY_MODEL",
    "GIB",
    "MIB",
    "Admin",
    "Dtype",
    "Fetch",
    "LabelTarget",
    "Level",
    "Limits",
    "LoadLimits",
    "Log",
    "Memory",
    "ModelSettings",
    "Poll",
    "Prices",
    "Reserve",
    "Scrub",
    "Section",
    "Serving",
    "Settings",
    "Signature",
    "Store",
    "TensorSpec",
    "Verify",
    "Versions",
]


class Settings(Section):
    """All settings of one agent."""

    store: Store
    serving: Serving
    models: Annotated[list[ModelSettings], Field(min_length=1, max_length=1000)]
    poll: Poll = Poll()
    verify: Verify = Verify()
    limits: Limits = Limits()
    fetch: Fetch = Fetch()
    memory: Memory = Memory()
    reserve: Reserve = Reserve()
    scrub: Scrub = Scrub()
    admin: Admin = Admin()
    log: Log = Log()

    @model_validator(mode="after")
    def _check_names_differ(self) -> Self:
        twice = [name for name, count in Counter(model.name for model in self.models).items() if count > 1]
        if twice:
            raise ValueError(f"models: named more than once: {', '.join(twice)}")
        return self

    @model_validator(mode="after")
    def _check_cache_dir(self) -> Self:
        """Refuse a cache where the server looks for versions."""
        cache, models = self.store.cache_dir, self.serving.models_dir
        if cache is not None and (cache.is_relative_to(models) or models.is_relative_to(cache)):
            raise ValueError("store.cache_dir and serving.models_dir must not lie in one another")
        return self

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        """Refuse labels that nobody would write, could move safely, or that would end the server's start."""
        named = [model.name for model in self.models if model.labels]
        needs = {
            "serving.config_file": self.serving.config_file,
            "serving.rest_url": self.serving.rest_url,
            "serving.allow_version_labels_for_unavailable_models: true (and the flag of that name for the "
            "server, which exits at every start with labels in its file otherwise)": (
                self.serving.allow_version_labels_for_unavailable_models
            ),
        }
        missing = [name for name, value in needs.items() if not value]
        if named and missing:
            raise ValueError(f"models: labels (of {', '.join(named)}) need {'; '.join(missing)}")
        return self
