"""The comparison of the farm with a plain script and Ray Data, in its tiny form."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import WanTransformer3DModel

from benchmarks import farm
from benchmarks.baselines import plain
from benchmarks.baselines.ray_data import RenderRow
from benchmarks.baselines.renderer import PlainRenderer
from benchmarks.baselines.workload import (
    ClipTimes,
    Guidance,
    Script,
    Workload,
    read_times,
    summarize,
)
from benchmarks.command import main
from benchmarks.gpu import __main__ as gpu
from infra.local.ray_cluster import LocalRay
from infra.local.s3_server import LocalS3
from pipelines.catalog.files.sources import model_paths
from pipelines.catalog.model_folder import inspect_model
from pipelines.catalog.model_yaml import load_model_config
from pipelines.families.registry import load_model
from pipelines.request import GenerationRequest, SamplingParams, VideoShape

SHAPES = Workload("shapes-wan-4step", VideoShape(5, 64, 64), 2, 2)


def times(worker: str, started_at: float, device_s: float, rest_s: float = 1.0) -> ClipTimes:
    stages_s = {"text": 0.0, "denoise": device_s, "decode": 0.0, "encode": rest_s, "upload": 0.0}
    return ClipTimes("clip", worker, started_at, stages_s, started_at + device_s + rest_s, 5)


def test_the_steady_pace_leaves_out_the_start_and_each_workers_first_clip() -> None:
    clips = [times("a", 20 + 4 * n, 2) for n in range(4)]  # 1 s of 4 without work
    clips += [times("b", 21 + 4 * n, 3) for n in range(4)]
    clips[0] = times("a", 20, 2, rest_s=1.5)
    found = summarize(10, 2, clips)
    assert found["first_clip_s"] == 13.5
    assert found["seconds_a_clip"] == (37 - 25) / 6
    assert found["clips_per_hour_with_start"] == pytest.approx(3600 * 8 / 27)
    assert found["busy_share"] == pytest.approx((8 + 12) / (14 + 15))
    assert found["peak_memory_bytes"] == 10
    assert (found["stages_s"]["denoise"], found["stages_s"]["encode"]) == (2.5, 1.0)
    with pytest.raises(ValueError, match="2 workers need more than 2 clips"):
        summarize(10, 2, clips[:2])


@pytest.fixture(scope="module")
def renderers(tmp_path_factory: pytest.TempPathFactory) -> dict[Guidance, PlainRenderer]:
    output = str(tmp_path_factory.mktemp("plain"))
    methods: tuple[Guidance, ...] = ("none", "nag", "cfg")
    return {method: PlainRenderer(Script.of(SHAPES, method, output, "cpu")) for method in methods}


@pytest.mark.models
@pytest.mark.parametrize("method", ["none", "nag"])
def test_a_plain_script_and_the_farm_render_the_same_clip(
    method: Guidance, renderers: dict[Guidance, PlainRenderer]
) -> None:
    path = model_paths()[SHAPES.model]
    config = load_model_config(path)
    model = load_model(config, inspect_model(config, path), num_threads=1)
    clip = SHAPES.clips[1]
    sampling = SamplingParams(SHAPES.num_inference_steps, 1.0, 3.0, clip.seed)
    request = GenerationRequest(
        clip.prompt, clip.negative_prompt, SHAPES.shape, 8, sampling, config.nag, method
    )
    latents = model.denoise(request, model.encode_text(request), lambda _step: None)
    own = model.decode(request, latents).result().frames.astype(float)
    model.close()
    plain = np.asarray(renderers[method].frames(clip)) * 255
    assert own.std() > 5
    assert np.abs(plain - own).max() <= 1  # a rounded value and the exact one


@pytest.mark.models
def test_the_plain_scripts_pass_count_and_stages_are_as_told(
    renderers: dict[Guidance, PlainRenderer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    passes: list[int] = []
    forward = WanTransformer3DModel.forward

    def counted(self: Any, *arguments: Any, **options: Any) -> Any:
        passes.append(1)
        return forward(self, *arguments, **options)

    monkeypatch.setattr(WanTransformer3DModel, "forward", counted)
    monkeypatch.setattr(plain, "PlainRenderer", lambda script: renderers[script.guidance])
    num_passes: dict[Guidance, int] = {"none": 2, "nag": 2, "cfg": 4}
    for method, expected in num_passes.items():
        script = Script.of(SHAPES, method, str(tmp_path), "cpu")
        script.write(tmp_path / "script.json")
        assert Script.read(tmp_path / "script.json") == script
        plain.main(tmp_path / "script.json", tmp_path / f"{method}.jsonl")
        clips = read_times(tmp_path / f"{method}.jsonl")
        assert [clip.name for clip in clips] == ["clip-000", "clip-001"]
        assert len(passes) == expected * len(clips)
        assert list(clips[0].stages_s) == ["text", "denoise", "decode", "encode", "upload"]
        passes.clear()


@pytest.mark.models
def test_ray_data_renders_one_row_a_batch(
    renderers: dict[Guidance, PlainRenderer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "benchmarks.baselines.renderer.PlainRenderer", lambda script: renderers[script.guidance]
    )
    clip = SHAPES.clips[1]
    batch = {name: np.array([value]) for name, value in asdict(clip).items()}
    (found,) = RenderRow(Script.of(SHAPES, "none", "unused", "cpu"))(batch)["times"]
    assert ClipTimes(**found).name == clip.name


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.s3
@pytest.mark.models
@pytest.mark.timeout(900)
def test_every_side_is_measured_and_the_page_compares_them(
    ray_cluster: LocalRay,
    s3_environment: LocalS3,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in ray_cluster.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster.address)
    monkeypatch.setattr(farm, "start_servers", lambda: "s3://renders")
    main(farm.BENCHMARK, [str(tmp_path / "farm"), "--tiny"])
    document = json.loads((tmp_path / "farm.json").read_text())
    assert len(document["cases"]) == 2 * len(farm.SIDES)
    assert len(document["figures"]) == 2 * (len(farm.SIDES) - 1)
    page = (tmp_path / "farm.md").read_text()
    assert page.count("together: nagfarm / plain script, cfg") == 2
    main(
        gpu.BENCHMARK,
        [str(tmp_path / "gpu"), "--tiny", "--only", "farm,", "plain script", "Ray Data"],
    )
    page = (tmp_path / "gpu.md").read_text()
    assert "| farm, VAE bfloat16 |" in page
    assert "busy share, farm, VAE float32" in page
