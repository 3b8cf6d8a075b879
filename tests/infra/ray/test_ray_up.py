"""The cluster of `ray up`: Ray's own schema, and Ray's own launcher against a stand-in for AWS."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError

from tests.structure import ROOT

CLUSTER = ROOT / "infra" / "ray" / "aws.yaml"
PAGE = ROOT / "docs" / "how-to" / "aws.md"
DOCKERFILE = ROOT / "infra" / "docker" / "Dockerfile"


@pytest.fixture
def cluster() -> dict[str, Any]:
    return yaml.safe_load(CLUSTER.read_text())


def test_rays_own_schema_accepts_the_cluster(cluster: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(cluster)
    validate_config(prepared)
    with pytest.raises(ValidationError, match="workers"):
        validate_config({**prepared, "workers": 1})


def test_the_head_renders_nothing_and_workers_come_and_go(cluster: dict[str, Any]) -> None:
    kinds = cluster["available_node_types"]
    assert kinds[cluster["head_node_type"]]["resources"] == {"CPU": 0}
    workers = {name: kind for name, kind in kinds.items() if name != cluster["head_node_type"]}
    assert all(kind["min_workers"] == 0 < kind["max_workers"] for kind in workers.values())
    assert max(workers) == "spot"  # Ray takes the last name if both fit
    assert "InstanceMarketOptions" in workers["spot"]["node_config"]


def test_the_cluster_fits_the_image(cluster: dict[str, Any]) -> None:
    """The home folder of the token, and the folder of weights, are those of the Dockerfile."""
    text = DOCKERFILE.read_text()
    (token,) = cluster["file_mounts"]
    assert f" HOME={token.removesuffix('/.ray/auth_token')} " in text
    (weights,) = (
        option.split(":")[1]
        for option in cluster["docker"]["run_options"]
        if option.startswith("--volume=")
    )
    assert f"HF_HUB_CACHE={weights}" in text
    assert "RAY_AUTH_MODE=token" in text


def test_the_pages_commands_are_whole() -> None:
    """They need an account; the shell at least can read them, and their files are there."""
    blocks = re.findall(r"^```\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    text = "\n".join(blocks)
    assert len(blocks) == 4
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    files = re.findall(r"infra/[\w/.-]+", text)
    assert files
    assert [file for file in files if not (ROOT / file).exists()] == []


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An account with a VPC and what the page makes in it, for a user with a home of their own."""
    import boto3
    from moto import mock_aws

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    trust = re.search(r"^trust='(.*)'$", PAGE.read_text(), re.MULTILINE)
    assert trust is not None
    with mock_aws():
        iam = boto3.client("iam")
        for role in ("nagfarm-head", "nagfarm-worker"):
            iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust[1])
            iam.create_instance_profile(InstanceProfileName=role)
            iam.add_role_to_instance_profile(InstanceProfileName=role, RoleName=role)
        iam.put_role_policy(
            RoleName="nagfarm-head",
            PolicyName="launch",
            PolicyDocument=(ROOT / "infra" / "ray" / "head-policy.json").read_text(),
        )
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("account")
@pytest.mark.filterwarnings("ignore")  # moto and Ray's launcher warn
def test_rays_launcher_starts_every_kind_of_node(cluster: dict[str, Any]) -> None:
    import boto3
    from ray.autoscaler._private.commands import _bootstrap_config
    from ray.autoscaler._private.providers import _get_node_provider
    from ray.autoscaler.tags import TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE

    config = json.loads(json.dumps(_bootstrap_config(cluster, no_config_cache=True)))
    provider = _get_node_provider(config["provider"], config["cluster_name"])
    for name, kind in config["available_node_types"].items():
        tags = {TAG_RAY_NODE_KIND: "worker", TAG_RAY_USER_NODE_TYPE: name}
        provider.create_node(kind["node_config"], tags, 1)
    reservations = boto3.client("ec2").describe_instances()["Reservations"]
    found = {}
    for instance in (one for each in reservations for one in each["Instances"]):
        tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
        profile = instance["IamInstanceProfile"]["Arn"].rpartition("/")[2]
        kind = (instance["InstanceType"], instance.get("InstanceLifecycle"), profile)
        found[tags[TAG_RAY_USER_NODE_TYPE]] = kind
    assert found == {
        "head": ("m7i.xlarge", None, "nagfarm-head"),
        "spot": ("g6e.2xlarge", "spot", "nagfarm-worker"),
        "on-demand": ("g6e.2xlarge", None, "nagfarm-worker"),
    }
