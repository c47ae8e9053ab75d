"""How a sweep is carried out, which changes no result."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mtbert.schema import ConfigError


@dataclass(frozen=True)
class Settings:
    """How a sweep is carried out; nothing here changes a result.

    Attributes:
        command: what to type to go on with the same sweep.
        address: of a Ray to join; null looks for one.
        fail_fast: whether the first run that fails ends the sweep.
        gpus_per_run: null is a whole one where there are any, for a pack that grows; with a `pack` that does
            not, the part of one that its memory is seen to take.
        pack: how many runs a trial holds; null is as many as a GPU has room for, and one on a CPU.
    """

    results: str
    command: str
    max_concurrent: int | None = None
    gpus_per_run: float | None = None
    address: str | None = None
    pack: int | None = None
    retry_failed: bool = False
    fail_fast: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.max_concurrent is not None and self.max_concurrent < 1:
            raise ConfigError(f"--max-concurrent: expected at least 1, got {self.max_concurrent}")
        if self.pack is not None and self.pack < 1:
            raise ConfigError(f"--pack: expected at least 1, got {self.pack}")
        gpus = self.gpus_per_run
        if gpus is not None and not (0 <= gpus <= 1 or (1 < gpus < math.inf and gpus == int(gpus))):
            raise ConfigError(f"--gpus-per-run: expected a fraction of one GPU, or whole ones, got {gpus:g}")
