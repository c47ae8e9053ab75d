"""A run and its identity: a configuration with a seed, on given data and a given base model.

Needs the standard library alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mtbert.configuration import Configuration, parse
from mtbert.schema import plain

METHOD_VERSION = 2
"""Raised by hand when a fix changes results, or a default changes: old runs are then not comparable."""


@dataclass(frozen=True)
class Run:
    """A configuration with a seed, trained once. The same id is the same run on any machine."""

    configuration: Configuration
    seed: int
    data: str  # fingerprint of the data
    model: str  # fingerprint of the base model

    @cached_property
    def config_id(self) -> str:
        """A short hash of all that decides the result but the seed; defaults do not enter it."""
        return digest(
            {
                "configuration": plain(self.configuration),
                "data": self.data,
                "model": self.model,
                "method": METHOD_VERSION,
            }
        )

    @property
    def run_id(self) -> str:
        return f"{self.config_id}-{self.seed}"

    def as_json(self) -> dict[str, Any]:
        """The run as plain data: what the ledger stores and a worker is sent.

        `settings` has the defaults written out, for those who ask the results without knowing them.
        """
        return {
            "run_id": self.run_id,
            "config_id": self.config_id,
            "seed": self.seed,
            "data": self.data,
            "model": self.model,
            "method_version": METHOD_VERSION,
            "configuration": plain(self.configuration),
            "settings": plain(self.configuration, defaults=True),
        }

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Run:
        """The run of such a record; fields beyond a run's own are left aside."""
        return Run(parse(record["configuration"]), record["seed"], record["data"], record["model"])


def digest(value: Any) -> str:
    """Twelve hexadecimal digits of the SHA-256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
