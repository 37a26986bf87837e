"""Writes `serving.config_file`, and logs what a write changes, why one failed, and which labels wait."""

from collections.abc import Mapping

from servesync.agent.models_config import ConfigKeeper, Draft
from servesync.domain.versions import Model
from servesync.errors import ConfigFileError
from servesync.log_throttle import LogThrottle
from servesync.logs import Event, get_logger
from servesync.serving import models_config
from servesync.settings import ModelSettings


class ConfigWriter:
    """Brings the file to what it is to say, and logs what that changes."""

    def __init__(self, keeper: ConfigKeeper, throttle: LogThrottle) -> None:
        self._keeper = keeper
        self._throttle = throttle
        self._problem = ""
        self._waiting: Mapping[tuple[Model, str], str] = {}

    def prepare(self, models: Mapping[Model, ModelSettings], *, names_all: bool) -> None:
        """Write the file before anything else is done; models that are no longer configured leave it.

        `names_all`: the settings name every model. Where they do not ("*"), one that is not among `models`
        may just not be known yet, and stays for as long as there is a version of it.
        """
        self._keeper.read_file()
        self.write(self._keeper.draft(models, {}, may_remove=names_all))

    def write(self, draft: Draft) -> bool:
        """Write the file if it is to say something else; return whether it was written."""
        self._report_waiting(draft)
        if draft.problem is not None:
            self._report(draft.problem)
            return False
        if draft.is_written:
            return False
        try:
            models_config.replace(draft.path, draft.config, self._keeper.found)
        except ConfigFileError as error:
            self._report(error)
            return False
        self._problem = ""
        adopted = bool(self._keeper.found.foreign)
        self._keeper.read_file()
        get_logger().info(
            Event.MODELS_CONFIG_WRITTEN, file=str(draft.path), changes=list(draft.changes), adopted=adopted
        )
        return True

    def _report(self, error: ConfigFileError) -> None:
        if str(error) != self._problem:
            self._throttle.over((Event.MODELS_CONFIG_FAILED, self._problem))
            self._problem = str(error)
        repeats = self._throttle.count((Event.MODELS_CONFIG_FAILED, self._problem))
        if repeats is not None:
            get_logger().error(
                Event.MODELS_CONFIG_FAILED,
                reason=error.reason,
                because=str(error),
                repeats=repeats,
                facts=error.facts,
            )

    def _report_waiting(self, draft: Draft) -> None:
        for (model, label), why in draft.waiting.items():
            if self._waiting.get((model, label)) != why:
                get_logger().info(Event.LABEL_WAITING, model=model, label=label, because=why)
        self._waiting = draft.waiting
