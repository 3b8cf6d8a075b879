"""The tags of an MP4, read as players, A1111's readers and ComfyUI read them."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.media.encode import encode_mp4
from jobs.media.tags import read_metadata
from jobs.settings.run_config import EncodingConfig
from jobs.types import ClipSpec, LoraIdentity
from jobs.worker.mp4_tags import comfyui_graph, mp4_tags, parameters_text
from nag.params import NagParams, NasaParams, VsfParams
from pipelines.request import GuidanceMethod, VideoFrames
from tests.builders.specs import spec

NASTY = 'a "quoted" = prompt; with # all, \\ and ünïcode 🎈 <b>\nsecond: line, yes'


def with_request(one: ClipSpec, **changes: Any) -> ClipSpec:
    return replace(one, request=replace(one.request, **changes))


ONE = with_request(spec(NASTY, seed=2**63 - 1), negative_prompt="blurry, low: quality")


@pytest.fixture
def mp4(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    frames = VideoFrames(np.zeros((2, 16, 16, 3), np.uint8), 8)
    encode_mp4(frames, path, EncodingConfig(preset="ultrafast"), mp4_tags(ONE))
    return path


def test_ffprobe_and_players_by_ffmpeg_show_title_description_and_comment(mp4: Path) -> None:
    tags = read_metadata(mp4)
    assert tags == mp4_tags(ONE)
    assert tags["title"] == ONE.name
    assert NASTY in tags["description"]
    assert "Negative prompt: blurry, low: quality" in tags["description"]
    assert tags["clip_id"] == ONE.clip_id
    request = json.loads(tags["comment"])["request"]
    assert (request["prompt"], request["sampling"]["seed"]) == (NASTY, 2**63 - 1)


def test_apples_names_hold_the_same_texts(mp4: Path) -> None:
    """VLC and QuickTime read an MP4's free tags under these names alone."""
    tags = read_metadata(mp4)
    for name in ("title", "description"):
        assert tags[f"com.apple.quicktime.{name}"] == tags[name]


# a reader of A1111's text, written after the behaviour of its `parse_generation_parameters`


def read_parameters(text: str) -> tuple[str, str, dict[str, str]]:
    """Return prompt, negative prompt and settings."""
    *lines, last = text.strip().split("\n")
    found = re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', last)
    assert len(found) >= 3, "with fewer settings the line counts as prompt"
    texts = {True: list[str](), False: list[str]()}
    is_negative = False
    for line in lines:
        is_negative = is_negative or line.startswith("Negative prompt:")
        texts[is_negative].append(line.removeprefix("Negative prompt:").strip())
    settings = {
        name: json.loads(value) if value.startswith('"') else value for name, value in found
    }
    return "\n".join(texts[False]), "\n".join(texts[True]), settings


def test_a_reader_of_a1111s_text_finds_prompts_and_settings(mp4: Path) -> None:
    prompt, negative_prompt, settings = read_parameters(read_metadata(mp4)["parameters"])
    assert (prompt, negative_prompt) == (NASTY, "blurry, low: quality")
    expected = {"Steps": "2", "CFG scale": "1", "Seed": str(2**63 - 1), "Size": "32x32"}
    assert expected.items() <= settings.items()
    assert settings["Model"] == "fake"
    assert settings["Clip"] == ONE.clip_id


@pytest.mark.parametrize(
    ("method", "effective"),
    [
        ("nag", {"nag_scale": "7.5"}),
        ("vsf", {"vsf_bias": "0.2"}),
        ("nasa", {"nasa_scale": "0.3"}),
        ("none", {}),
    ],
)
def test_the_parameters_of_the_method_alone_are_shown(
    method: GuidanceMethod, effective: dict[str, str]
) -> None:
    params = {"nag": NagParams(nag_scale=7.5), "vsf": VsfParams(), "nasa": NasaParams()}
    one = with_request(ONE, method=method, **params)
    _, _, settings = read_parameters(parameters_text(one))
    assert settings["Guidance"] == method
    shown = {name for name in settings if "_" in name}
    assert {name.split("_")[0] for name in shown} == ({method} if effective else set())
    assert effective.items() <= settings.items()


def test_a_clip_without_a_negative_prompt_has_no_such_line_and_loras_are_named() -> None:
    lora = LoraIdentity("user/a, b: c", "r", 0.5, "all")
    one = replace(spec("plain"), model=replace(ONE.model, loras=(lora,)))
    prompt, negative_prompt, settings = read_parameters(parameters_text(one))
    assert (prompt, negative_prompt) == ("plain", "")
    assert "Negative prompt" not in parameters_text(one)
    assert settings["LoRA 1"] == "user/a, b: c 0.5"


# ComfyUI's way to the tags: moov/udta/meta, then each item of ilst by its number in keys


def boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 0
    while position < len(content):
        size = int.from_bytes(content[position : position + 4])
        assert size >= 8
        yield content[position + 4 : position + 8], content[position + 8 : position + size]
        position += size


def box(content: bytes, *path: bytes) -> bytes:
    for kind in path:
        content = next(inner for name, inner in boxes(content) if name == kind)
        content = content[4:] if kind == b"meta" else content
    return content


def read_as_comfyui(mp4: bytes) -> dict[str, str]:
    meta = box(mp4, b"moov", b"udta", b"meta")
    names = [name.decode() for _, name in boxes(box(meta, b"keys")[8:])]
    values = [box(item, b"data")[8:].decode() for _, item in boxes(box(meta, b"ilst"))]
    return dict(zip(names, values, strict=True))


def test_comfyui_finds_a_graph_of_its_nodes(mp4: Path) -> None:
    tags = read_as_comfyui(mp4.read_bytes())
    graph = json.loads(tags["prompt"])
    assert graph == comfyui_graph(ONE)
    (sampler,) = (node for node in graph.values() if node["class_type"] == "KSampler")
    inputs = sampler["inputs"]
    assert (inputs["seed"], inputs["steps"], inputs["cfg"]) == (2**63 - 1, 2, 1.0)
    texts = {side: graph[inputs[side][0]]["inputs"]["text"] for side in ("positive", "negative")}
    assert texts == {"positive": NASTY, "negative": "blurry, low: quality"}
    latents = graph[inputs["latent_image"][0]]["inputs"]
    assert (latents["width"], latents["height"], latents["length"]) == (32, 32, 5)


def test_every_link_of_the_graph_leads_to_a_node() -> None:
    loras = tuple(LoraIdentity(f"lora-{number}", "r", 0.5, "all") for number in range(2))
    graph = comfyui_graph(replace(ONE, model=replace(ONE.model, loras=loras)))
    links = [
        value for node in graph.values() for value in node["inputs"].values()
        if isinstance(value, list)
    ]  # fmt: skip
    assert len(links) == 8
    assert all(number in graph and output == 0 for number, output in links)
    chain = graph[next(n["inputs"]["model"][0] for n in graph.values() if "seed" in n["inputs"])]
    assert chain["inputs"]["lora_name"] == "lora-1"
    assert graph[chain["inputs"]["model"][0]]["inputs"]["lora_name"] == "lora-0"
