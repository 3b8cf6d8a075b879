"""The commands of every page run, in the order of the page, on a real output in a folder."""

from pathlib import Path

import pytest

from infra.local.ray_cluster import LocalRay
from tests.builders.page_runs import (
    CANNOT_RUN,
    Workspace,
    empty_workspace,
    make_workspace,
    pages_to_run,
    reason_against,
)

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]
FIRST_TUTORIAL = "docs/tutorial/first-clips.md"  # it runs with the models that it names


@pytest.fixture(scope="module")
def rendered(ray_cluster: LocalRay, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    environment = {**ray_cluster.environment(), "RAY_ADDRESS": ray_cluster.address}
    return make_workspace(tmp_path_factory.mktemp("workspace"), environment)


@pytest.mark.parametrize("page", sorted({*pages_to_run()} - {FIRST_TUTORIAL}))
def test_the_commands_of_a_page_run(page: str, rendered: Workspace, tmp_path: Path) -> None:
    failed = rendered.copy(tmp_path).run_page(page)
    assert not failed, "\n".join(failed)


@pytest.mark.models
def test_the_first_tutorial_renders_its_clips(ray_cluster: LocalRay, tmp_path: Path) -> None:
    """With the models that come with nagfarm, not with stand-ins."""
    environment = {**ray_cluster.environment(), "RAY_ADDRESS": ray_cluster.address}
    space = empty_workspace(tmp_path, environment)
    assert space.run_page(FIRST_TUTORIAL) == []
    clips = sorted((tmp_path / "clips").glob("*.mp4"))
    assert [clip.name for clip in clips] == [f"first-{number:06}.mp4" for number in range(12)]
    assert len({clip.read_bytes() for clip in clips}) == 12
    assert len(list((tmp_path / "clips").glob("*.json"))) == 12


def test_a_command_that_fails_is_noticed(rendered: Workspace, tmp_path: Path) -> None:
    space = rendered.copy(tmp_path)
    assert space.run("nagfarm status s3://renders/nowhere").returncode == 2
    assert space.run("nagfarm status s3://renders/nowhere --json | jq .eta_s").returncode != 0


def test_a_rule_excludes_few_commands() -> None:
    assert reason_against("nagfarm render spring.yaml --limit 2") is None
    assert reason_against("nagfarm models --fetch wan2.1-t2v-1.3b") == CANNOT_RUN["--fetch"]
    assert reason_against("kubectl get pods") == "needs kubectl"
