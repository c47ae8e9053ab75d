"""What `python -m sweeps.cluster check` finds in a cluster's file, and that the shipped files pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mtbert.schema import ConfigError
from sweeps.cluster.__main__ import main
from sweeps.cluster.check import problems, read_cluster, read_constraints
from sweeps.cluster.cost import hourly, parse_prices
from tests.sweeps.conftest import ROOT

AWS, LOCAL = "cluster.yaml", "cluster-local.yaml"
CONSTRAINTS = read_constraints(ROOT / "constraints.txt")


def given(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    return loaded


def found(tmp_path: Path, config: dict[str, Any]) -> list[str]:
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    return problems(read_cluster(str(file)), CONSTRAINTS)


@pytest.mark.parametrize("name", [AWS, LOCAL])
def test_the_shipped_files_pass(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(ROOT / name)]) == 0
    assert "nothing wrong found" in capsys.readouterr().out


def rule(low: int, high: int, source: str = "0.0.0.0/0") -> dict[str, Any]:
    return {"FromPort": low, "ToPort": high, "IpProtocol": "tcp", "IpRanges": [{"CidrIp": source}]}


def opened(*rules: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda config: config["provider"]["security_group"].update(IpPermissions=list(rules))


def node(config: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = config["available_node_types"][name]
    return found


SPOILT: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no region": (lambda c: c["provider"].pop("region"), "provider.region: expected"),
    "no such region": (lambda c: c["provider"].update(region="us-west-9"), "got 'us-west-9'"),
    "a zone elsewhere": (lambda c: c["provider"].update(availability_zone="eu-west-1a"), "availability_zone"),
    "a typo in the provider": (
        lambda c: c["provider"].update(cache_stoped_nodes=False),
        "cache_stoped_nodes",
    ),
    "a typo in a node": (
        lambda c: node(c, "head")["node_config"].update(InstanceTyp="m5.large"),
        "InstanceTyp",
    ),
    "a deep typo in a node": (
        lambda c: node(c, "gpu-spot")["node_config"].update(InstanceMarketOptions={"MarketTyp": "spot"}),
        "MarketTyp",
    ),
    "no instance type": (lambda c: node(c, "head")["node_config"].pop("InstanceType"), "InstanceType"),
    "Ray's port open": (opened(rule(6379, 6379)), "got ports 6379 to 6379"),
    "a range around ssh open": (opened(rule(0, 65535)), "got ports 0 to 65535"),
    "no fallback": (lambda c: c["available_node_types"].pop("gpu-on-demand"), "spot without a fallback"),
    "a smaller fallback": (
        lambda c: node(c, "gpu-on-demand").update(resources={"CPU": 4}),
        "spot without a fallback",
    ),
    "a fallback that may come first": (lambda c: node(c, "gpu-spot").pop("priority"), "gpu-spot.priority"),
    "kept nodes": (lambda c: c["provider"].pop("cache_stopped_nodes"), "cache_stopped_nodes: expected false"),
    "a head that trains": (lambda c: node(c, "head").update(resources={"CPU": 2}), "head.resources.CPU"),
    "no token file": (lambda c: c["file_mounts"].pop("~/.ray/auth_token"), "file_mounts: no token"),
    "no token asked of workers": (
        lambda c: c.update(
            worker_start_ray_commands=["ulimit -n 65536; ray start --address=$RAY_HEAD_IP:6379"]
        ),
        "worker_start_ray_commands: no token asked for",
    ),
    "Ray's own start commands": (
        lambda c: c.pop("head_start_ray_commands"),
        "--dashboard-host: expected 127.0.0.1,",
    ),
    "few open files": (
        lambda c: c.update(
            worker_start_ray_commands=["export RAY_AUTH_MODE=token; ray start --address=$RAY_HEAD_IP:6379"]
        ),
        "no limit on open files",
    ),
    "Ray's own set-up": (lambda c: c.pop("setup_commands"), "nothing is installed at the versions"),
    "another Ray": (
        lambda c: c["setup_commands"].append("pip install 'ray[default]==2.9.0'"),
        "ray: expected " + CONSTRAINTS["ray"],
    ),
    "any Python of a kind": (
        lambda c: c["setup_commands"].append("uv venv --python 3.11"),
        "--python: expected a version such as 3.11.7, got 3.11",
    ),
}


@pytest.mark.parametrize("what", SPOILT)
def test_what_is_wrong_is_said_and_nothing_else(what: str, tmp_path: Path) -> None:
    spoil, expected = SPOILT[what]
    config = given(AWS)
    spoil(config)
    said = found(tmp_path, config)
    assert any(expected in each for each in said), said
    assert len(said) == 1 or "Ray's own" in what, said


def test_ssh_may_be_open_and_other_ports_to_some(tmp_path: Path) -> None:
    config = given(AWS)
    opened(rule(22, 22), rule(8265, 8265, "10.0.0.0/8"))(config)
    assert found(tmp_path, config) == []


def test_own_machines_need_the_older_autoscaler(tmp_path: Path) -> None:
    config = given(LOCAL)
    config["head_start_ray_commands"] = [
        each.replace("RAY_enable_autoscaler_v2=0", "") for each in config["head_start_ray_commands"]
    ]
    (said,) = found(tmp_path, config)
    assert "RAY_enable_autoscaler_v2=0" in said


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"provider": {"type": "gcp"}}, "provider.type: expected aws or local, got 'gcp'"),
        ({"provider": {"type": "local", "worker_ips": ["a"]}}, "provider.head_ip"),
        ({"max_wrokers": 3}, "max_wrokers"),
        ({"max_workers": "many"}, "max_workers: 'many'"),
        ({"head_node_type": "none"}, "head_node_type"),
    ],
)
def test_what_ray_refuses_is_told_in_a_line(change: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        found(tmp_path, {**given(AWS), **change})
    assert expected in str(error.value)


def test_an_hour_costs_at_most_the_dearest_workers_up_to_their_limit() -> None:
    config = {
        "head_node_type": "head",
        "max_workers": 3,
        "available_node_types": {
            "head": {},
            "spot": {"min_workers": 1, "max_workers": 3},
            "dear": {"max_workers": 2},
        },
    }
    cost = hourly(config, {"head": 0.1, "spot": 0.4, "dear": 1.0})
    assert cost == (pytest.approx(0.5), pytest.approx(0.1 + 2 * 1.0 + 0.4))


@pytest.mark.parametrize("price", ["head", "head=much", "head=-1", "other=1", "head=1"])
def test_prices_are_for_every_type_of_the_cluster(price: str) -> None:
    with pytest.raises(ConfigError, match="--price"):
        parse_prices([price], ["head", "spot"])


def test_a_price_for_every_type_gives_what_an_hour_costs(capsys: pytest.CaptureFixture[str]) -> None:
    prices = ["--price", "head=1", "--price", "gpu-spot=2", "--price", "gpu-on-demand=3"]
    assert main(["check", str(ROOT / AWS), *prices]) == 0
    limit = given(AWS)["max_workers"]
    assert f"at most {1 + 3 * limit:.2f}" in capsys.readouterr().out
