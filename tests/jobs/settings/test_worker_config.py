"""The kind of node of a worker: settings, which of them wins, and the selectors of labels."""

import pytest

from jobs.errors import ConfigError
from jobs.settings.run_config import load_config
from jobs.settings.worker_config import ACCELERATOR_LABEL, Placement, WorkerConfig, matches


def test_a_model_has_the_placement_of_the_run_and_each_value_of_its_own_wins() -> None:
    settings = [
        "workers.num_gpus=0.5",
        "workers.label_selector={zone: a, disk: fast}",
        "workers.resources={slot: 1}",
        "workers.models[wan2.1-t2v-14b]={accelerator_type: H100, label_selector: {zone: b}}",
        "workers.models[wan2.1-t2v-14b].num_gpus=1",
    ]
    workers = load_config(None, settings).workers
    assert workers.placement_of("shapes-wan").labels == {"zone": "a", "disk": "fast"}
    assert workers.placement_of("shapes-wan").num_gpus == 0.5
    large = workers.placement_of("wan2.1-t2v-14b")
    assert large.labels == {"zone": "b", "disk": "fast", ACCELERATOR_LABEL: "H100"}
    assert (large.num_gpus, large.resources) == (1, {"slot": 1})
    assert workers.anywhere().placement_of("wan2.1-t2v-14b") == WorkerConfig()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("num_gpus=2", "must be 1, or a share of one GPU from 0.01, such as 0.5, got 2.0; for a"),
        ("num_gpus=0", "must be 1, or a share"),
        ("resources={GPU: 1}", "set workers.num_gpus for GPU"),
        ("resources={disk: 0}", "expected a name and a number from 0.0001 to 1e.15, got 'disk': 0"),
        (
            "resources={disk: .inf}",
            "expected a name and a number from 0.0001 to 1e.15, got 'disk': inf",
        ),
        ("label_selector={zone: 'in(a'}", r"expected a, !a, in\(a, b\) or !in\(a, b\) for zone"),
        ("label_selector={zone: ''}", "got ''"),
        ("label_selector={'a b': a}", "expected the name of a label, such as ray.io/accelerator"),
        ("label_selector={ray.io/node-id: a}", "give the nodes a label of their own"),
        ("accelerator_type=A100 80GB", "for ray.io/accelerator-type, got 'A100 80GB'"),
        ("models={a: {num_gpus: 3}}", "must be 1, or a share"),
        ("models={a: {count: 3}}", "Key 'count' not in 'Placement'"),
        ("share=greedy", "expected one of .*fair"),
        ("weight=0", "workers.weight must be at least 0.01"),
    ],
)
def test_a_placement_that_no_node_can_have_is_refused(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, [f"workers.{setting}"])


def test_a_placement_of_an_unknown_model_is_refused_with_the_nearest_name() -> None:
    workers = WorkerConfig(models={"shapes-wann": Placement(0.5)})
    with pytest.raises(ConfigError, match="workers.models: unknown model .* 'shapes-wan'?"):
        workers.check_models(["shapes-ltx", "shapes-wan"])
    workers.check_models(["shapes-wann"])


@pytest.mark.parametrize(
    ("selector", "value", "expected"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a", None, False),
        ("!a", "b", True),
        ("!a", None, True),
        ("in(a, b)", "b", True),
        ("in(a,b)", "c", False),
        ("!in(a, b)", "b", False),
        ("!in(a, b)", None, True),
    ],
)
def test_a_selector_matches_as_in_ray(selector: str, value: str | None, expected: bool) -> None:
    assert matches(selector, value) == expected
