"""The common part of Wan and LTX: a stock diffusers pipeline, guided, loaded and called.

A clip depends on its request alone. `wan` and `ltx` have the differences between the families.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

import nag
from pipelines.attention.exact_attention import exact_attention
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import ModelWeights, transformer_names
from pipelines.catalog.upsampler_files import UpsamplerWeights
from pipelines.context_parallel.sharding import ShardedPipeline
from pipelines.errors import RequestError
from pipelines.families.acceleration import Acceleration
from pipelines.families.chosen_loras import ChosenLoras
from pipelines.families.decode import FetchedAudio, FetchedFrames, fetch_frames
from pipelines.families.device import TorchDevice
from pipelines.families.schedulers import ClipSchedulers
from pipelines.families.weight_shapes import check_weight_shapes
from pipelines.load_progress import LoadProgress
from pipelines.parallel_config import ParallelConfig
from pipelines.request import GenerationRequest, TextEmbeddings
from pipelines.texts import EncodedTexts
from pipelines.video_model import OnStep
from pipelines.weights.fewer_bits import cast_layers, quantization_settings, read_ggufs
from pipelines.weights.placement import Placement, check_offload, place

if TYPE_CHECKING:
    from pipelines.families.second_stage import SecondStageRunner

EncodedText = tuple[torch.Tensor, torch.Tensor | None]  # (1, L, D), attention mask (1, L) or None
MAX_TEXTS = 256  # 4 MB each for UMT5-XXL at 512 tokens


def cache_texts(
    encode: Callable[[str], EncodedText], max_texts: int = MAX_TEXTS
) -> Callable[[str], EncodedText]:
    """Encode each distinct text once, and keep the texts used last.

    The key is the text itself, for prompts and negative prompts alike, so no text is taken for
    another. Texts are encoded one at a time, so that an embedding does not depend on other texts.

    Args:
        encode: makes the embeddings of one text.
        max_texts: the number of texts to keep, 1 or more.
    """
    return lru_cache(maxsize=max_texts)(encode)


def seeded(seed: int) -> torch.Generator:
    """Return a generator on the CPU, whose noise is the same whatever device renders."""
    return torch.Generator("cpu").manual_seed(seed)


class DiffusersModel(ABC):
    """A stock diffusers pipeline whose attention follows the guidance method of each request.

    Nothing of a clip is left for the next one: the noise comes from a CPU generator with the clip's
    own seed, each clip has a new scheduler, embeddings depend on their text alone, and caches begin
    empty.
    """

    pipeline_class: ClassVar[Any]

    def __init__(
        self,
        config: ModelConfig,
        pipeline: Any,
        device: torch.device,
        loras: ChosenLoras | None = None,
    ) -> None:
        """Take over a pipeline that is loaded already; `load` loads one from a folder.

        Args:
            loras: LoRAs of the pipeline; without them no clip can choose any.
        """
        self.config = config
        self.torch_device = device
        self.device = TorchDevice(device)
        self.pipeline = pipeline
        self._schedulers = ClipSchedulers(config.scheduler, pipeline.scheduler)
        self._loras = loras
        self._acceleration = Acceleration(pipeline, config)
        self._nag = nag.install(pipeline)
        self._placement = Placement(pipeline, device, config.offload)
        self._embed = cache_texts(self._encode_on_device)
        self._sharded: ShardedPipeline | None = None
        self._second_stage: SecondStageRunner | None = None

    @classmethod
    def load(
        cls,
        config: ModelConfig,
        weights: ModelWeights,
        progress: LoadProgress,
        *,
        has_text: bool = True,
    ) -> "DiffusersModel":
        """Load safetensors that `pipelines.catalog.model_folder.inspect_model` accepted.

        Args:
            config: the model.
            weights: the model's folder and LoRAs.
            progress: receives the parts of the load.
            has_text: True to load the text encoder, False for a rank that receives embeddings.
        """
        automatic = "cuda" if torch.cuda.is_available() else "cpu"
        device = torch.device(automatic if config.device == "auto" else config.device)
        check_offload(device, config.offload)
        with progress.part("shapes"):
            check_weight_shapes(weights.folder, config.gguf_files)
        dtype = getattr(torch, config.dtype)
        dtypes = dict.fromkeys(
            ("transformer", "transformer_2", "text_encoder", "connectors"), dtype
        )
        own_parts = cls._own_parts(weights.folder)
        with progress.part("read"):
            pipeline = cls.pipeline_class.from_pretrained(
                weights.folder,
                dtype={**dtypes, "vae": getattr(torch, config.vae_dtype), "default": torch.float32},
                use_safetensors=True,
                local_files_only=True,
                # each weight goes there as it is read
                device_map=device.type if config.fits_as_read else "cpu",
                **read_ggufs(config, weights),
                **quantization_settings(config, transformer_names(weights.folder)),
                **({} if has_text else {"text_encoder": None, "tokenizer": None}),
                **dict.fromkeys(own_parts),
            )
            pipeline.register_modules(**own_parts)
        pipeline.set_progress_bar_config(disable=True)
        with progress.part("install"):
            if config.fuse_loras:  # on the device, which adds faster
                pipeline = place(pipeline, device, config.offload)
            loras = ChosenLoras(pipeline, config, weights)
            if not config.fuse_loras:
                cast_layers(pipeline, config)  # on the host: the device may lack the room
                pipeline = place(pipeline, device, config.offload)
            model = cls(config, pipeline, device, loras)
            if weights.upsampler is not None:
                model.add_second_stage(weights.upsampler)
            return model

    def add_second_stage(self, weights: UpsamplerWeights) -> None:
        """Load the latent upsampler, and denoise in two stages from now on."""
        from pipelines.families.second_stage import SecondStageRunner

        self._second_stage = SecondStageRunner.load(
            self.config, self.pipeline.scheduler, weights, self.torch_device
        )

    @property
    def nag_coverage(self) -> nag.Coverage:
        """The number of text attentions that guidance acts on, and the number of all."""
        return self._nag.coverage

    def encode_text(
        self, request: GenerationRequest, ahead: Sequence[GenerationRequest] = ()
    ) -> TextEmbeddings:
        with self._placement.encoding():
            prompt, negative, unconditional = (
                (None, None) if text is None else self._embed(text)
                for text in EncodedTexts.of(request)
            )
            if self._placement.has_fetched_encoder:
                self._encode_ahead(ahead)
        assert prompt[0] is not None
        return TextEmbeddings(prompt[0], prompt[1], *negative, *unconditional)

    @torch.no_grad()
    def denoise(
        self, request: GenerationRequest, embeddings: TextEmbeddings, on_step: OnStep
    ) -> torch.Tensor:
        self._placement.clear()  # the LoRAs' own changes are for the weights in the host's memory
        if self._loras is not None:
            self._loras.choose(request.loras)
        elif request.loras:
            raise RequestError.of("this pipeline was loaded without LoRAs", "loras")
        second = self._second_stage
        if second is None:
            return self._denoise(request, embeddings, on_step)
        first = second.first(request)
        latents = self._denoise(first, embeddings, on_step)
        num_before = request.sampling.num_steps
        self.pipeline.scheduler = second.scheduler(request)
        arguments: dict[str, Any] = {
            **self._second_arguments(second, request, embeddings, latents),
            **second.schedule.arguments,
        }
        return self._run(request, embeddings, lambda step: on_step(num_before + step), arguments)

    def _denoise(
        self, request: GenerationRequest, embeddings: TextEmbeddings, on_step: OnStep
    ) -> torch.Tensor:
        """Denoise from noise; the only stage, or the first one."""
        sampling = request.sampling
        self.pipeline.scheduler = self._schedulers.build(sampling.flow_shift, sampling.seed)
        arguments: dict[str, Any] = {
            "num_inference_steps": sampling.num_inference_steps,
            "guidance_scale": sampling.guidance_scale,
            **self._start(request),
            **self._call_arguments(request, embeddings),
        }
        return self._run(request, embeddings, on_step, arguments)

    def _run(
        self,
        request: GenerationRequest,
        embeddings: TextEmbeddings,
        on_step: OnStep,
        arguments: dict[str, Any],
    ) -> torch.Tensor:
        """Call the pipeline once, guided, with a scheduler that it has already."""

        def report_step(
            _pipeline: Any, step_index: int, _timestep: Any, _tensors: dict[str, Any]
        ) -> dict[str, Any]:
            on_step(step_index)
            return {}

        with self._acceleration.clip(), self._guidance(request, embeddings):
            result = self.pipeline(
                height=request.shape.height,
                width=request.shape.width,
                output_type="latent",
                callback_on_step_end=report_step,
                max_sequence_length=self.config.max_sequence_length,
                **arguments,
            )
            return self._latents_of(result)

    @torch.no_grad()
    def decode(self, request: GenerationRequest, latents: torch.Tensor) -> FetchedFrames:
        with self._acceleration.decoding():
            video = self._decode(request, latents)
            audio = self._decode_audio(request, latents) if request.audio else None
            return fetch_frames(video, request.fps, self.device, audio)

    def shard(self, config: ParallelConfig) -> None:
        """Shard `denoise` over the ranks of the default process group.

        From then on all ranks must make the same calls.

        Raises:
            ShardingError: the model or the process group does not support it.
        """
        self.unshard()
        self._sharded = ShardedPipeline(self.pipeline, config, self.torch_device)

    def unshard(self) -> None:
        """Denoise alone again, also after the process group was destroyed. May be called twice."""
        if self._sharded is not None:
            self._sharded.remove()
            self._sharded = None

    @contextmanager
    def exact_attention(self) -> Generator[None]:
        # A compiled block has chosen its kernels already, so blocks run uncompiled here.
        with self._acceleration.eager(), exact_attention():
            yield

    def close(self) -> None:
        self.unshard()
        self._placement.remove()
        self._nag.remove()
        self._acceleration.remove()
        del self.pipeline, self._embed, self._loras, self._placement
        if self.torch_device.type == "cuda":
            torch.cuda.empty_cache()

    @classmethod
    def _own_parts(cls, _folder: Path) -> dict[str, Any]:
        """Return the components of a folder that diffusers must not load itself."""
        return {}

    def _start(self, request: GenerationRequest) -> dict[str, Any]:
        """Return the arguments that the denoising begins with: the frames and their noise."""
        return {"num_frames": request.shape.num_frames, "latents": self._draw_noise(request)}

    def _second_arguments(
        self,
        second: "SecondStageRunner",
        request: GenerationRequest,
        embeddings: TextEmbeddings,
        latents: torch.Tensor,
    ) -> dict[str, Any]:
        """Return the arguments of the second stage, but for its schedule.

        Args:
            latents: the first stage's, as `_latents_of` returns them.
        """
        raise NotImplementedError(f"{type(self).__name__} has no second stage")

    def _latents_of(self, result: Any) -> torch.Tensor:
        """Return the latents in the answer of the pipeline as one tensor, which `_decode` takes."""
        return result.frames

    def _draw_noise(self, request: GenerationRequest) -> torch.Tensor:
        """Draw the latents that the pipeline begins with, as it does, from the request's seed.

        The pipeline draws them itself once it has waited for the device, which then idles.
        """
        shape = request.shape
        noise = self.pipeline.prepare_latents(
            1,
            self.pipeline.transformer.config.in_channels,
            shape.height,
            shape.width,
            shape.num_frames,
            torch.float32,
            torch.device("cpu"),
            seeded(request.sampling.seed),
        )
        return self.device.send(noise)

    def _guidance(self, request: GenerationRequest, embeddings: TextEmbeddings) -> Any:
        params = request.attention_params
        if params is None:
            return nullcontext()
        assert embeddings.negative_prompt_embeds is not None
        negative = self._negative_text(
            embeddings.negative_prompt_embeds, embeddings.negative_prompt_attention_mask
        )
        return self._nag.guide(negative, params)

    def _negative_text(
        self, embeds: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> nag.NegativeText:
        """Return the text that guides the attention, from the embeddings that `_encode` made."""
        return nag.NegativeText(embeds, attention_mask)

    def _encode_on_device(self, text: str) -> EncodedText:
        self._placement.fetch_encoder()
        return self._encode(text)

    def _encode_ahead(self, requests: Sequence[GenerationRequest]) -> None:
        """Embed the texts of clips that come next. One that fails will fail again for its clip."""
        with suppress(RuntimeError, ValueError):
            for request in requests:
                for text in EncodedTexts.of(request):
                    if text is not None:
                        self._embed(text)

    def _encode_prompt(self, text: str) -> tuple[Any, ...]:
        """Embed one text by the pipeline's own call, without an unconditional one beside it."""
        return self.pipeline.encode_prompt(
            text,
            do_classifier_free_guidance=False,
            max_sequence_length=self.config.max_sequence_length,
            device=self.torch_device,
        )

    @abstractmethod
    def _encode(self, text: str) -> EncodedText:
        """Embed one text with the pipeline's own text encoder."""

    @abstractmethod
    def _call_arguments(
        self, request: GenerationRequest, embeddings: TextEmbeddings
    ) -> dict[str, Any]:
        """Return the arguments of this family's pipeline beyond those that all families take."""

    @abstractmethod
    def _decode(self, request: GenerationRequest, latents: torch.Tensor) -> torch.Tensor:
        """Decode latents to one video, (1, 3, T, H, W), of values in -1..1."""

    def _decode_audio(
        self, _request: GenerationRequest, _latents: torch.Tensor
    ) -> FetchedAudio | None:
        """Decode the sound in the latents; None for a family without sound."""
        return None
