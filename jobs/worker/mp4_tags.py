"""The tags of an MP4, by which it tells its origin wherever its file is moved.

Decides which reader finds what. nagfarm itself reads `clip_id` and `comment`. Players show title
and description, VLC and QuickTime under Apple's names alone. Readers of A1111's text look for
`parameters` or the description, ComfyUI and its readers for `prompt`, a graph of ComfyUI's own
nodes. Loads without torch.

Source: ComfyUI_frontend, src/scripts/metadata/isobmff.ts, reads `prompt` and `workflow` from the
keys in moov/udta/meta; stable-diffusion-webui, modules/infotext_utils.py, reads the text.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from jobs.records.strict_json import dump, from_dataclass
from jobs.types import ClipSpec
from jobs.worker.provenance import installed_versions

APPLE = "com.apple.quicktime"
# ComfyUI's names of diffusers' schedulers; a flow model's saved scheduler is Euler's as a rule.
SAMPLERS = {
    "UniPCMultistepScheduler": "uni_pc",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "FlowMatchLCMScheduler": "lcm",
    "FlowMatchHeunDiscreteScheduler": "heun",
}


def mp4_tags(spec: ClipSpec) -> dict[str, str]:
    """Return the tags of a clip's MP4; none is empty."""
    text = parameters_text(spec)
    request = {"model": from_dataclass(spec.model), "request": from_dataclass(spec.request)}
    return {
        "title": spec.name,
        "description": text,
        f"{APPLE}.title": spec.name,
        f"{APPLE}.description": text,
        "clip_id": spec.clip_id,
        "comment": dump(request).decode(),
        "parameters": text,
        "prompt": dump(comfyui_graph(spec)).decode(),
        "nagfarm_version": installed_versions()["nagfarm"],
    }


def parameters_text(spec: ClipSpec) -> str:
    """Return prompt, negative prompt and settings as A1111 writes them below a picture."""
    request, model = spec.request, spec.model
    sampling, shape = request.sampling, request.shape
    guidance = request.attention_params
    settings: Mapping[str, object] = {
        "Steps": sampling.num_inference_steps,
        "Sampler": model.scheduler,
        "CFG scale": sampling.guidance_scale,
        "Seed": sampling.seed,
        "Size": f"{shape.width}x{shape.height}",
        "Model": model.name,
        "Frames": shape.num_frames,
        "FPS": request.fps,
        **({} if sampling.flow_shift is None else {"Flow shift": sampling.flow_shift}),
        "Guidance": request.method,
        **({} if guidance is None else asdict(guidance)),
        **{f"LoRA {number}": f"{lora.source} {lora.weight:g}"
           for number, lora in enumerate(model.loras, start=1)},
        "Clip": spec.clip_id,
        "Version": f"nagfarm {installed_versions()['nagfarm']}",
    }  # fmt: skip
    lines = [request.prompt]
    if request.negative_prompt:
        lines.append(f"Negative prompt: {request.negative_prompt}")
    lines.append(", ".join(f"{name}: {_setting(value)}" for name, value in settings.items()))
    return "\n".join(lines)


def comfyui_graph(spec: ClipSpec) -> dict[str, Any]:
    """Return the clip as a graph of ComfyUI's nodes, in the form of its API.

    It shows texts, seed, steps and sizes. It does not render the same clip: ComfyUI has other noise
    and names its models by their files.
    """
    request, model = spec.request, spec.model
    sampling, shape = request.sampling, request.shape
    nodes: dict[str, Any] = {}

    def add(kind: str, title: str, **inputs: object) -> list[object]:
        number = str(len(nodes) + 1)
        nodes[number] = {"class_type": kind, "inputs": inputs, "_meta": {"title": title}}
        return [number, 0]

    loaded = add("UNETLoader", model.name, unet_name=model.source, weight_dtype="default")
    for lora in model.loras:
        loaded = add(
            "LoraLoaderModelOnly",
            "LoRA",
            model=loaded,
            lora_name=lora.source,
            strength_model=lora.weight,
        )
    positive = add("CLIPTextEncode", "Positive Prompt", text=request.prompt)
    negative = add("CLIPTextEncode", "Negative Prompt", text=request.negative_prompt)
    latents = add(
        "EmptyHunyuanLatentVideo",
        "Size",
        width=shape.width,
        height=shape.height,
        length=shape.num_frames,
        batch_size=1,
    )
    sampled = add(
        "KSampler",
        f"KSampler, guidance {request.method}",
        model=loaded,
        positive=positive,
        negative=negative,
        latent_image=latents,
        seed=sampling.seed,
        steps=sampling.num_inference_steps,
        cfg=sampling.guidance_scale,
        sampler_name=SAMPLERS.get(model.scheduler, "euler"),
        scheduler="simple",
        denoise=1.0,
    )
    images = add("VAEDecode", "VAE Decode", samples=sampled)
    add("CreateVideo", "Create Video", images=images, fps=request.fps)
    return nodes


def _setting(value: object) -> str:
    """Return a value of the settings' line; A1111 reads one with a comma or colon from quotes."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r"[,:\n]", text) else text
