"""What is wrong with a cluster's file, beyond what Ray's own validation sees; nothing is started or asked.

Ray fills in defaults before it validates, and starts what it then has: so does this.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from mtbert.schema import ConfigError

Config = Mapping[str, Any]

PROVIDERS = ("aws", "local")
PROVIDER_FIELDS = {
    "aws": {
        "type",
        "region",
        "availability_zone",
        "cache_stopped_nodes",
        "use_internal_ips",
        "security_group",
        "key_pair",
        "cloudwatch",
        "disable_node_updaters",
    },
    "local": {"type", "head_ip", "worker_ips", "use_internal_ips", "disable_node_updaters"},
}
RAYS_OWN = {"SubnetIds"}
"""Of a node_config, what Ray takes for itself before it asks EC2."""
WORLD = ("0.0.0.0/0", "::/0")
SSH = 22
TOKEN = "~/.ray/auth_token"
LOOPBACK = ("127.0.0.1", "localhost")


def read_cluster(path: str) -> dict[str, Any]:
    """The file with Ray's defaults filled in, as `ray up` would have it.

    Raises:
        ConfigError: no such file, no YAML, another provider, or what Ray refuses.
    """
    try:
        given = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {error}") from error
    provider = given.get("provider") if isinstance(given, dict) else None
    provider = provider if isinstance(provider, dict) else {}
    kind = provider.get("type")
    if kind not in PROVIDERS:
        raise ConfigError(f"{path}: provider.type: expected {' or '.join(PROVIDERS)}, got {kind!r}")
    if kind == "local":
        for field in ("head_ip", "worker_ips"):  # without them Ray ends the process
            if not provider.get(field):
                raise ConfigError(f"{path}: provider.{field}: expected what ssh reaches, got nothing")
    return _prepared(path, given)


def _prepared(path: str, given: dict[str, Any]) -> dict[str, Any]:
    import jsonschema
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        config: dict[str, Any] = prepare_config(given)
        validate_config(config)
    except jsonschema.ValidationError as error:
        where = ".".join(map(str, error.absolute_path)) or "the file"
        raise ConfigError(f"{path}: {where}: {error.message}") from error
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    return config


def problems(config: Config, constraints: Mapping[str, str]) -> list[str]:
    """Each thing that is wrong, as `field: expected ..., got ...`.

    Args:
        config: from `read_cluster`.
        constraints: the versions that every node must have, by package.
    """
    looks: list[Callable[[Config], Iterator[str]]] = [provider_fields, token, loopback, files]
    if config["provider"]["type"] == "aws":
        looks += [region, node_configs, world, fallback, kept_nodes, head_trains_nothing]
    else:
        looks += [autoscaler]
    return [*(said for look in looks for said in look(config)), *versions(config, constraints)]


def provider_fields(config: Config) -> Iterator[str]:
    """Fields of `provider` that Ray would pass over."""
    known = PROVIDER_FIELDS[config["provider"]["type"]]
    for name in config["provider"]:
        if name not in known:
            yield f"provider.{name}: unknown; known are {', '.join(sorted(known))}"


def region(config: Config) -> Iterator[str]:
    """A region that AWS has, and zones that are in it."""
    import botocore.session

    name = config["provider"].get("region")
    known = botocore.session.Session().get_available_regions("ec2")
    if name not in known:
        yield f"provider.region: expected one of EC2's ({', '.join(known[:3])}, ...), got {name!r}"
    zones = config["provider"].get("availability_zone") or ""
    for zone in filter(None, (part.strip() for part in zones.split(","))):
        if not zone.startswith(str(name)):
            yield f"provider.availability_zone: expected zones of {name}, got {zone!r}"


def node_configs(config: Config) -> Iterator[str]:
    """What EC2 would refuse, or Ray pass over, held to the description of RunInstances that boto3 brings."""
    import botocore.session
    from botocore.validate import ParamValidator

    ec2 = botocore.session.Session().get_service_model("ec2")
    shape = ec2.operation_model("RunInstances").input_shape
    for name, node in config["available_node_types"].items():
        where = f"available_node_types.{name}.node_config"
        given = {key: value for key, value in node["node_config"].items() if key not in RAYS_OWN}
        if "InstanceType" not in given:
            yield f"{where}.InstanceType: expected a type such as m5.large, got nothing"
        report = ParamValidator().validate({"MinCount": 1, "MaxCount": 1, **given}, shape)
        for line in report.generate_report().splitlines():
            yield f"{where}: {line}"


def world(config: Config) -> Iterator[str]:
    """Ports other than that of ssh that the whole world may reach."""
    for rule in config["provider"].get("security_group", {}).get("IpPermissions", []):
        ranges = [each.get("CidrIp") for each in rule.get("IpRanges", [])]
        ranges += [each.get("CidrIpv6") for each in rule.get("Ipv6Ranges", [])]
        ports = (rule.get("FromPort"), rule.get("ToPort"))
        if ports != (SSH, SSH) and any(each in WORLD for each in ranges):
            yield (
                "provider.security_group.IpPermissions: expected ssh (22) alone to be open to the world, "
                f"got ports {ports[0]} to {ports[1]}"
            )


def fallback(config: Config) -> Iterator[str]:
    """Spot workers whose work nobody does when there is no spot capacity, or others do before them."""
    workers = {name: node for name, node in config["available_node_types"].items()
               if name != config["head_node_type"] and node.get("max_workers", 0) > 0}  # fmt: skip
    for name, node in workers.items():
        if not is_spot(node):
            continue
        wanted, priority = node.get("resources", {}), node.get("priority", 0)
        behind = [
            other.get("priority", 0)
            for other in workers.values()
            if not is_spot(other)
            and all(other.get("resources", {}).get(key, 0) >= wanted[key] for key in wanted)
        ]
        if not behind:
            yield (
                f"available_node_types.{name}: spot without a fallback; add a type with the same resources "
                "and without InstanceMarketOptions"
            )
        elif max(behind) >= priority:
            yield (
                f"available_node_types.{name}.priority: expected more than its fallback's {max(behind)}, so "
                f"that spot is tried first; got {priority}"
            )


def is_spot(node: Config) -> bool:
    """Whether a node type is of machines that may be taken away."""
    return "InstanceMarketOptions" in node.get("node_config", {})


def kept_nodes(config: Config) -> Iterator[str]:
    """`ray down` that stops machines whose disks are then paid for."""
    kept = config["provider"].get("cache_stopped_nodes", True)
    if kept is not False:
        yield f"provider.cache_stopped_nodes: expected false, or `ray down` only stops; got {kept!r}"


def head_trains_nothing(config: Config) -> Iterator[str]:
    """A head that dies of a run takes the sweep with it."""
    head = config["head_node_type"]
    cores = config["available_node_types"][head].get("resources", {}).get("CPU")
    if cores != 0:
        where = f"available_node_types.{head}.resources.CPU"
        yield f"{where}: expected 0, so that it trains nothing; got {cores!r}"


def token(config: Config) -> Iterator[str]:
    """Whoever reaches a Ray without a token runs commands on it."""
    if TOKEN not in config["file_mounts"]:
        yield f"file_mounts: no token; add `{TOKEN}: {TOKEN}`, which `ray get-auth-token --generate` makes"
    for field, command in starts(config):
        if "RAY_AUTH_MODE=token" not in command:
            yield f"{field}: no token asked for; put `export RAY_AUTH_MODE=token;` before `ray start`"


def loopback(config: Config) -> Iterator[str]:
    """A dashboard that listens to more than its own machine."""
    for field, command in starts(config):
        host = re.search(r"--dashboard-host[= ](\S+)", command)
        if host and host[1] not in LOOPBACK:
            way = f"{LOOPBACK[0]}, which `ray dashboard` reaches"
            yield f"{field}: --dashboard-host: expected {way}; got {host[1]}"


def files(config: Config) -> Iterator[str]:
    """A node that runs out of open files under many workers."""
    for field, command in starts(config):
        if "ulimit -n" not in command:
            yield f"{field}: no limit on open files; put `ulimit -n 65536;` before `ray start`"


def autoscaler(config: Config) -> Iterator[str]:
    """Autoscaler v2 starts too few workers with this provider, and `ray up` exits 0 all the same."""
    for field, command in starts(config):
        if "--head" in command and "RAY_enable_autoscaler_v2=0" not in command:
            yield f"{field}: with provider local, put RAY_enable_autoscaler_v2=0 before `ray start`"


def starts(config: Config) -> list[tuple[str, str]]:
    """The commands that start Ray, by field."""
    fields = ("head_start_ray_commands", "worker_start_ray_commands")
    return [(field, each) for field in fields for each in config[field] if "ray start" in each]


def versions(config: Config, constraints: Mapping[str, str]) -> Iterator[str]:
    """Nodes that could come to other versions than those tested together; Ray's and Python's must match."""
    roles = ("head_setup_commands", "worker_setup_commands")  # Ray has put setup_commands before both
    commands = list(dict.fromkeys(command for role in roles for command in config[role]))
    for role in roles:
        if not any("pip install" in command and "constraints.txt" in command for command in config[role]):
            yield f"{role}: nothing is installed at the versions of constraints.txt; give pip --constraint"
    for command in commands:
        for pinned in re.findall(r"\bray(?:\[[\w,]+\])?==([\w.]+)", command):
            if pinned != constraints["ray"]:
                yield f"setup_commands: ray: expected {constraints['ray']} (constraints.txt), got {pinned}"
        for wheel in re.findall(r"ray-wheels\S+", command):
            yield f"setup_commands: ray: expected {constraints['ray']} (constraints.txt), got {wheel}"
        for python in re.findall(r"--python[= ]([\w.]+)", command):
            if not re.fullmatch(r"\d+\.\d+\.\d+", python):
                yield f"setup_commands: --python: expected a version such as 3.11.7, got {python}"


def read_constraints(path: Path) -> dict[str, str]:
    """The versions in a file of `package==version` lines."""
    lines = (line.partition("==") for line in path.read_text(encoding="utf-8").splitlines())
    return {name.lower(): version.strip() for name, mark, version in lines if mark}
