"""The list of scenarios, and what is held against a run besides the audit."""

import pytest

from tests.chaos.harness.fault_mix import poison_for
from tests.chaos.harness.runner import Scenario, judge, judge_quarantine, undisturbed
from tests.chaos.harness.scenarios import FEW, SHORT, all_scenarios, fault_free
from tests.chaos.harness.soak import ProcessSample, growth
from tests.chaos.harness.stand_in import FAULTS
from tests.chaos.harness.workload import Workload


@pytest.mark.parametrize("is_short", [True, False])
def test_every_scenario_has_a_name_of_its_own_that_a_bucket_takes(is_short: bool) -> None:
    names = [scenario.name for scenario in all_scenarios(is_short=is_short)]
    assert len(names) == len(set(names))
    assert set(SHORT) <= set(names)
    assert all(name == name.lower() and " " not in name for name in names)


def test_every_poison_is_one_that_the_family_knows() -> None:
    for scenario in all_scenarios(is_short=False):
        known = {"nan"} if scenario.workload.family == "shapes" else {"nan", *FAULTS}
        assert set(scenario.workload.poison) <= known
    assert set(poison_for(1000)) <= {"nan", *FAULTS}


def test_what_a_scenario_is_measured_against_has_the_same_clips_and_no_poison() -> None:
    base = fault_free(Workload(24, poison=("die",)))
    assert base.workload == FEW
    assert base.name == fault_free(FEW).name


def test_a_run_that_ends_otherwise_than_it_must_is_held_against_it() -> None:
    scenario = Scenario("kill", "kill -9", FEW, lambda _: 1, (-9, 0))
    assert judge(scenario, [-9, 0], 1) == []
    assert judge(scenario, [-9, 4], 1) == ["drivers ended with [-9, 4], expected [-9, 0]"]


def test_a_run_that_nothing_was_injected_into_shows_nothing() -> None:
    assert judge(Scenario("kill", "kill -9", FEW, lambda _: 1), [0], 0) != []
    assert judge(Scenario("calm", "none", FEW, undisturbed), [0], 0) == []


def test_poisoned_rows_belong_in_quarantine_and_no_others() -> None:
    planned = {"clip-1", "clip-2", "poison-1-die"}
    assert judge_quarantine({"poison-1-die"}, planned) == []
    assert judge_quarantine({"clip-1"}, planned) == [
        "poison-1-die is poisoned and was not given up",
        "clip-1 was given up and is as it should be",
    ]


def test_growth_is_seen_between_the_first_and_the_last_quarter_of_a_soak() -> None:
    def at(moment_s: float, age_s: float = 100.0) -> ProcessSample:
        return ProcessSample("driver", 1, moment_s, age_s, int(moment_s) * 2**20, 10)

    samples = [at(0.0, age_s=1.0), *(at(float(moment)) for moment in range(100, 201, 25))]
    assert growth(samples) == {
        "driver's memory in MiB": (112.5, 187.5),
        "driver's open files": (10.0, 10.0),
    }
