"""The examples of docs/how-to/kubernetes.md work as written, as far as they need no Kubernetes."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from jobs.cli.main import parse_arguments
from jobs.manifest.manifest import open_manifest
from jobs.manifest.model_catalog import ModelCatalog
from jobs.settings.run_config import NotifyConfig
from pipelines.catalog.files.sources import model_paths
from tests.builders.kubernetes import (
    COMPONENTS,
    OVERLAYS,
    TREE,
    Object,
    build,
    clusters,
    of_kind,
    overlay,
    pods,
)
from tests.structure import ROOT

PAGE = (ROOT / "docs" / "how-to" / "kubernetes.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
YAML = [text for language, text in BLOCKS if language == "yaml"]
COMMANDS = [line for language, text in BLOCKS if not language for line in text.splitlines()]
INLINE = re.findall(r"`((?:kubectl|nagfarm|ray job) [^`]*)`", PAGE)


def example(*words: str) -> str:
    """Return the one example of YAML with these words."""
    (found,) = [text for text in YAML if all(word in text for word in words)]
    return found


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder beside which infra/kuberay lies, with the manifest and the key file of the page."""
    shutil.copytree(TREE, tmp_path / "infra" / "kuberay")
    (tmp_path / "spring").mkdir()
    (tmp_path / "spring" / "spring.yaml").write_text(example("model: shapes-wan"))
    (tmp_path / "s3.env").write_text("AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=b\n")
    return tmp_path


def run_of(checkout: Path, *more: str) -> list[Object]:
    """Build the run of the page, with further examples at the end of its kustomization."""
    text = "".join((example("infra/kuberay/job", "spring.yaml"), *more))
    (checkout / "spring" / "kustomization.yaml").write_text(text)
    return build(checkout / "spring")


def test_the_first_run_of_the_page_is_one_rayjob(checkout: Path) -> None:
    objects = run_of(checkout)
    (job,) = of_kind(objects, "RayJob")
    assert {pod["spec"]["containers"][0]["image"] for pod in pods(objects)} == {
        "registry.example.com/nagfarm:cuda"
    }
    manifest = checkout / "spring" / "spring.yaml"
    assert {"manifest.yaml": manifest.read_text()} in [
        one["data"] for one in of_kind(objects, "ConfigMap")
    ]
    assert job["spec"]["jobId"].startswith("render-")
    assert len(list(open_manifest(manifest, ModelCatalog()).specs())) == 1


def test_a_manifest_in_s3_is_one_run_too(checkout: Path) -> None:
    (job,) = of_kind(run_of(checkout, example("namePrefix")), "RayJob")
    assert job["metadata"]["name"] == job["spec"]["jobId"]
    assert job["spec"]["jobId"].startswith("spring-0123456789ab-render-")
    assert len(job["metadata"]["name"]) <= 47  # KubeRay's limit
    words = shlex.split(job["spec"]["entrypoint"])
    namespace = parse_arguments(words[1:])
    assert namespace.command == "render"
    assert namespace.wait


def test_a_run_can_have_more_workers(checkout: Path) -> None:
    (cluster,) = clusters(run_of(checkout, example("maxReplicas")))
    assert cluster["workerGroupSpecs"][0]["groupName"] == "spot"
    assert cluster["workerGroupSpecs"][0]["maxReplicas"] == 32
    (checkout / "own").mkdir()
    (checkout / "own" / "profile.yaml").write_text("workers: {count: 34}\n")
    (checkout / "own" / "kustomization.yaml").write_text(example("infra/kuberay/farm"))
    (settings,) = of_kind(build(checkout / "own"), "ConfigMap")
    (packaged,) = of_kind(overlay("farm"), "ConfigMap")
    assert settings["metadata"] == packaged["metadata"]
    assert settings["data"] == packaged["data"] | {"profile.yaml": "workers: {count: 34}\n"}


def test_weights_of_another_model_are_fetched_into_a_claim_of_a_class(checkout: Path) -> None:
    (checkout / "own").mkdir()
    text = example("infra/kuberay/weights", "storageClassName")
    (checkout / "own" / "kustomization.yaml").write_text(text)
    objects = build(checkout / "own")
    (claim,) = of_kind(objects, "PersistentVolumeClaim")
    assert claim["spec"]["storageClassName"] == "shared"
    (job,) = of_kind(objects, "Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (model,) = [one["value"] for one in container["env"] if one["name"] == "MODEL"]
    assert model in model_paths()
    words = [word.replace("$(MODEL)", model) for word in container["command"]]
    assert parse_arguments(words[1:]).fetch == [model]


def test_every_example_of_yaml_is_tried() -> None:
    assert len(YAML) == 6


def test_the_folders_of_the_page_are_those_of_the_tree() -> None:
    for path in re.findall(r"infra/kuberay/([\w/.-]*\w)", PAGE):
        assert (TREE / path).exists(), path
    (table,) = re.findall(r"\| folder of .*?\n\n", PAGE, re.DOTALL)
    named = set(re.findall(r"`([\w/-]+)`", table))
    assert named == {"infra/kuberay", "components", *OVERLAYS, *COMPONENTS}


def applied() -> Iterator[str]:
    for line in COMMANDS:
        found = re.search(r"kubectl (?:apply|delete|replace --force) -k (\S+)", line)
        if found:
            yield found[1]


def test_every_folder_that_is_applied_can_be() -> None:
    """A folder with pods is applied through an operator's own, which names the image."""
    own = {"spring", "weights", "standing"}
    assert own <= set(applied())
    for name in set(applied()) - own:
        assert list(pods(overlay(name.removeprefix("infra/kuberay/")))) == []


def test_the_secrets_of_the_page_have_the_names_and_keys_that_pods_read(checkout: Path) -> None:
    made = dict[str, set[str]]()
    for line in COMMANDS:
        if not line.startswith("kubectl create secret"):
            continue
        command = line.partition(" | ")[0].replace(" --dry-run=client -o yaml", "")
        finished = subprocess.run(
            ["bash", "-c", f"{command} --dry-run=client -o yaml"],
            cwd=checkout, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if shutil.which("kubectl") is None:
            pytest.skip("the program kubectl is missing: it makes the Secrets of the page")
        assert finished.returncode == 0, finished.stderr
        secret = yaml.safe_load(finished.stdout)
        made[secret["metadata"]["name"]] = set(secret["data"])
    assert made == {
        "nagfarm-ray-token": {"auth_token"},
        "nagfarm-s3": {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"},
        "nagfarm-webhook": {NotifyConfig().webhook_variable},
    }


def test_the_digest_of_the_page_is_computed_as_written(checkout: Path) -> None:
    (line,) = [line for line in COMMANDS if line.startswith("digest=")]
    finished = subprocess.run(
        ["bash", "-c", f"{line}; echo $digest"],
        cwd=checkout / "spring", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert re.fullmatch(r"[0-9a-f]{12}\n", finished.stdout)


def test_the_times_of_the_page_are_those_of_the_objects() -> None:
    (cluster,) = clusters(overlay("job"))
    spec = cluster["headGroupSpec"]["template"]["spec"]
    (container,) = spec["containers"]
    (stop_s,) = [
        one["value"] for one in container["env"] if one["name"] == "RAY_JOB_STOP_WAIT_TIME_S"
    ]
    drain_s = yaml.safe_load((TREE / "farm" / "profile.yaml").read_text())["workers"]["drain_s"]
    hook_s = container["lifecycle"]["preStop"]["exec"]["command"][-1]
    end_s = spec["terminationGracePeriodSeconds"]
    (table,) = re.findall(r"\| time \| s \| place \|\n.*?\n\n", PAGE, re.DOTALL)
    times = re.findall(r"^\| [^|]* \| (\d+) \|", table, re.MULTILINE)
    assert times == [str(one) for one in (drain_s, stop_s, hook_s, end_s)]
