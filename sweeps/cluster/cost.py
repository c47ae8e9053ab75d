"""What an hour of a cluster costs, at given prices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mtbert.schema import ConfigError


class Cost(NamedTuple):
    """Of an hour, in the currency of the prices: with the workers that are always kept, and with all."""

    least: float
    most: float


def parse_prices(given: Sequence[str], known: Sequence[str]) -> dict[str, float]:
    """Prices per hour by node type, from `TYPE=PRICE`.

    Raises:
        ConfigError: another form, or a type that the cluster has not.
    """
    prices = {}
    for text in given:
        name, _, price = text.partition("=")
        if name not in known:
            raise ConfigError(f"--price: expected one of {', '.join(known)}=PRICE, got {text!r}")
        try:
            prices[name] = float(price)
        except ValueError:
            raise ConfigError(f"--price: expected {name}=PRICE, a number per hour, got {text!r}") from None
        if not 0 <= prices[name] < float("inf"):
            raise ConfigError(f"--price: expected at least 0 per hour, got {text!r}")
    missing = [name for name in known if name not in prices]
    if given and missing:
        raise ConfigError(f"--price: give one for every node type; {', '.join(missing)} have none")
    return prices


def hourly(config: Mapping[str, Any], prices: Mapping[str, float]) -> Cost:
    """The head and the workers; at most `max_workers` of them, the dearest types first."""
    head = config["head_node_type"]
    workers = {name: node for name, node in config["available_node_types"].items() if name != head}
    least = prices[head] + sum(prices[name] * node.get("min_workers", 0) for name, node in workers.items())
    each = [prices[name] for name, node in workers.items() for _ in range(node.get("max_workers", 0))]
    most = prices[head] + sum(sorted(each, reverse=True)[: config["max_workers"]])
    return Cost(least, most)
