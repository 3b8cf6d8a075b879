"""The benchmark of guidance on a GPU, in its tiny form on a CPU."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.command import main
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import card
from benchmarks.gpu.steps import Speed, StepTimes, Variant, floor, step_operations
from benchmarks.real_sizes import build_pipeline
from benchmarks.report import ROOT, Result
from pipelines.context_parallel.geometry import ModelGeometry
from pipelines.cost.prediction import CARDS, Device, card_of
from pipelines.cost.published import LTX_2B, WAN_1_3B


def run(prefix: Path, *arguments: str) -> None:
    main(command.BENCHMARK, [str(prefix), *arguments])


def test_each_case_is_measured_once_and_a_second_call_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path / "gpu", "--tiny", "--only", "832x480x17")
    first = json.loads((tmp_path / "gpu.json").read_text())["cases"]
    assert list(first) == ["Wan 1.3B, 832x480x17"]
    (case,) = first.values()
    assert {variant: len(steps) for variant, steps in case["steps_s"].items()} == dict.fromkeys(
        ("none", "nag", "cfg"), 6
    )
    run(tmp_path / "gpu", "--tiny", "--only", "17", "LTX 2B, 768x512x121")
    document = json.loads((tmp_path / "gpu.json").read_text())
    assert document["cases"]["Wan 1.3B, 832x480x17"] == case
    assert document["command"] == "python -m benchmarks.gpu --tiny"
    assert list(document["figures"]) == [f"nag / none, {name}" for name in document["cases"]]
    assert len(document["cases"]) == 3
    run(tmp_path / "gpu", "--tiny", "--minutes", "-1")
    assert "9 cases are left; call this again" in capsys.readouterr().err
    card.main([str(tmp_path / "gpu.json")])
    assert capsys.readouterr().out.startswith('Device("cpu", ')


@pytest.mark.slow
def test_whole_clips_are_rendered_by_the_farm_a_plain_script_and_ray_data(tmp_path: Path) -> None:
    run(tmp_path / "gpu", "--tiny", "--only", "farm", "plain script", "Ray Data")
    result = Result.read(tmp_path / "gpu.json")
    assert len(result.cases) == 5
    for case in result.cases.values():
        assert case["num_clips"] == 2
        assert 0 < case["busy_share"] <= 1
        assert all(case["stages_s"][stage] > 0 for stage in ("text", "denoise", "decode", "encode"))
    assert {"busy share, farm, VAE float32", "busy share, farm, VAE bfloat16"} < set(result.figures)


def test_the_speed_of_a_card_is_that_of_its_longest_uncompiled_step() -> None:
    small, large = (
        {"step_operations": step_operations(case), "median_s": {"none": 2.0}}
        for case in (command.CASES[1], command.CASES[0])
    )
    cases = {"Wan, short": small, "Wan, long": large, "Wan, compiled": {**large, "median_s": {}}}
    machine = "one NVIDIA H200 NVL, 16 CPU cores (Intel), 128 GiB memory, Linux"
    result = Result("gpu", [], machine, {}, "", {**cases, "farm": {}}, {})
    found = card.card_in(result, "docs/measurements/gpu.json")
    speed = pytest.approx(step_operations(command.CASES[0]) / 2, rel=0.01)
    assert (found.name, found.flops_per_s) == ("H200", speed)
    with pytest.raises(ValueError, match="no uncompiled case of a step yet"):
        card.card_in(Result("gpu", [], machine, {}, "", {"farm": {}}, {}), "gpu.json")


@pytest.mark.parametrize("device", [card for card in CARDS if card.measured_by])
def test_a_measured_card_has_the_speed_of_its_committed_measurement(device: Device) -> None:
    assert device.measured_by is not None
    assert card.card_in(Result.read(ROOT / device.measured_by), device.measured_by) == device


def test_cards_are_found_by_the_names_that_torch_gives_devices() -> None:
    names = {
        "NVIDIA H100 80GB HBM3": "H100",
        "NVIDIA A100-SXM4-80GB": "A100",
        "NVIDIA H800": "H800",
        "NVIDIA GH100 480GB": "H100",  # as every unknown card
        "cpu": "H100",
    }
    assert {name: card_of(name).name for name in names} == names


def test_without_a_gpu_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="--tiny tries the benchmark on a CPU"):
        run(tmp_path / "gpu")


def test_the_floor_counts_the_second_attention_and_one_pass_over_three_tensors() -> None:
    case = command.CASES[0]
    times: dict[Variant, StepTimes] = {"none": StepTimes([0.6])}
    moved_bytes = 3 * 30 * 32_760 * 1536 * 2
    attention = 30 * 4 * 32_760 * 512 * 1536
    keys_and_values = 30 * 4 * 512 * 1536**2
    assert floor(case, times, Speed(7e14, 4e12)) == pytest.approx(
        1 + ((attention + keys_and_values) / 7e14 + moved_bytes / 4e12) / 0.6
    )


@pytest.mark.parametrize("geometry", [WAN_1_3B, LTX_2B])
def test_weights_have_the_dtypes_that_diffusers_gives_them_on_loading(
    geometry: ModelGeometry, tmp_path: Path
) -> None:
    small = replace(geometry, num_layers=1, num_heads=2, head_dim=12, ffn_dim=32)
    built = build_pipeline(small, torch.device("cpu")).transformer
    built.save_pretrained(tmp_path)
    loaded = type(built).from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    assert {name: each.dtype for name, each in built.state_dict().items()} == {
        name: each.dtype for name, each in loaded.state_dict().items()
    }
