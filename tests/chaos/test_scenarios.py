"""The list of scenarios, and the checks of a run in addition to the audit."""

import pytest

from tests.chaos.harness.fault_mix import poison_for
from tests.chaos.harness.runner import Scenario, check_drivers, check_quarantine, inject_nothing
from tests.chaos.harness.scenarios import FEW, SHORT_SCENARIOS, all_scenarios, fault_free
from tests.chaos.harness.soak import ProcessSample, growth
from tests.chaos.harness.stand_in import FAULTS
from tests.chaos.harness.workload import Workload


@pytest.mark.parametrize("is_short", [True, False])
def test_every_scenario_has_a_unique_name_that_a_bucket_accepts(is_short: bool) -> None:
    names = [scenario.name for scenario in all_scenarios(is_short=is_short)]
    assert len(names) == len(set(names))
    assert set(SHORT_SCENARIOS) <= set(names)
    assert all(name == name.lower() and " " not in name for name in names)


def test_every_poison_is_known_to_its_video_model() -> None:
    for scenario in all_scenarios(is_short=False):
        known = {"nan"} if scenario.workload.family == "shapes" else {"nan", *FAULTS}
        assert set(scenario.workload.poison) <= known
    assert set(poison_for(1000)) <= {"nan", *FAULTS}


def test_the_fault_free_scenario_has_the_same_clips_and_no_poison() -> None:
    base = fault_free(Workload(24, poison=("die",)))
    assert base.workload == FEW
    assert base.name == fault_free(FEW).name


def test_an_unexpected_exit_code_is_a_problem() -> None:
    scenario = Scenario("kill", "kill -9", FEW, lambda _: 1, (-9, 0))
    assert check_drivers(scenario, [-9, 0], 1) == []
    assert check_drivers(scenario, [-9, 4], 1) == ["drivers ended with [-9, 4], expected [-9, 0]"]


def test_a_run_without_an_injected_fault_is_a_problem() -> None:
    assert check_drivers(Scenario("kill", "kill -9", FEW, lambda _: 1), [0], 0) != []
    assert check_drivers(Scenario("fault_free", "none", FEW, inject_nothing), [0], 0) == []


def test_exactly_the_poisoned_rows_must_be_quarantined() -> None:
    planned = {"clip-1", "clip-2", "poison-1-die"}
    assert check_quarantine({"poison-1-die"}, planned) == []
    assert check_quarantine({"clip-1"}, planned) == [
        "poison-1-die is poisoned and was not quarantined",
        "clip-1 was quarantined and is healthy",
    ]


def test_growth_compares_the_first_and_the_last_quarter_of_a_soak() -> None:
    def at(moment_s: float, age_s: float = 100.0) -> ProcessSample:
        return ProcessSample("driver", 1, moment_s, age_s, int(moment_s) * 2**20, 10)

    samples = [at(0.0, age_s=1.0), *(at(float(moment)) for moment in range(100, 201, 25))]
    assert growth(samples) == {
        "driver's memory in MiB": (112.5, 187.5),
        "driver's open files": (10.0, 10.0),
    }
