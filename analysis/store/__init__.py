"""The results of all runs: a ledger that is the truth, and the tables that are made from it.

One `Writer` per driver writes; `read` and the tables can be had by anybody at any moment.
"""

from analysis.store.errors import Fenced, StoreError, Superseded
from analysis.store.ledger import Claim, Writer
from analysis.store.locks import driver_alive, living_drivers
from analysis.store.reader import Reader, read
from analysis.store.state import FINAL, Occupied, RunState, State, SweepState, Tag
from analysis.store.weights import read_weights, weights_path

__all__ = [
    "FINAL",
    "Claim",
    "Fenced",
    "Occupied",
    "Reader",
    "RunState",
    "State",
    "StoreError",
    "Superseded",
    "SweepState",
    "Tag",
    "Writer",
    "driver_alive",
    "living_drivers",
    "read",
    "read_weights",
    "weights_path",
]
