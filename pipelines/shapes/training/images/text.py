"""The text side of the Shapes image models: word tokenizers, CLIP text encoders and a T5 encoder.

Each learns to read each attribute, or that a caption leaves it open, from the caption alone. The
denoisers are then trained on their frozen tokens. All models share them: Stable Diffusion XL takes
the two CLIP encoders, Stable Diffusion 3 all three, Flux the first CLIP encoder's pooled text and
the T5 encoder's tokens.

Shape suffixes: B captions, L tokens, D channels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from pipelines.shapes.images import IMAGE_ATTRIBUTES, image_caption, sample_image
from pipelines.shapes.training.running.training_log import LogStep
from pipelines.shapes.training.text import ALPHABET, SPECIAL_TOKENS, attribute_targets

MAX_TOKENS = 16  # each word of a caption is one token; the longest caption has 14
CLIP_DIM = 32
T5_DIM = 2 * CLIP_DIM  # Stable Diffusion 3 puts the two CLIP encoders' channels side by side
CLIP_ENDS = ("<|startoftext|>", "<|endoftext|>")


@dataclass(frozen=True)
class ImageTextTraining:
    """The length and speed of the training of one text encoder."""

    num_steps: int = 350
    batch_size: int = 128
    learning_rate: float = 3e-3
    num_tokenizer_captions: int = 20_000
    seed: int = 1


@dataclass(frozen=True, eq=False)
class TextParts:
    """The trained tokenizers and text encoders."""

    clip_tokenizer: CLIPTokenizer
    clip: CLIPTextModelWithProjection
    clip_2: CLIPTextModelWithProjection
    t5_tokenizer: T5Tokenizer
    t5: T5EncoderModel


def caption_words(training: ImageTextTraining) -> list[str]:
    """Return the words of captions in alphabetical order, without their commas."""
    generator = torch.Generator().manual_seed(training.seed)
    captions = [
        image_caption(sample_image(generator), generator)
        for _ in range(training.num_tokenizer_captions)
    ]
    return sorted({word for text in captions for word in text.replace(",", " ").split()})


def build_clip_tokenizer(words: list[str]) -> CLIPTokenizer:
    """Build byte pairs that join into whole words; other text falls into letters."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    letters = sorted(set(ALPHABET.lower()))
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        initial_alphabet=letters,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator([word.lower() for word in words] * 2, trainer)
    import json

    learnt = json.loads(tokenizer.to_str())["model"]
    tokens = dict.fromkeys([*CLIP_ENDS, *letters, *(f"{one}</w>" for one in letters)])
    tokens |= dict.fromkeys(learnt["vocab"])
    merges = [tuple(pair) for pair in learnt["merges"]]
    tokenizer_class: Any = CLIPTokenizer  # its annotation names another form of merges
    return tokenizer_class(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=merges,
        model_max_length=MAX_TOKENS,
    )


def build_t5_tokenizer(words: list[str]) -> T5Tokenizer:
    """Build a vocabulary of whole words, and single letters for other text."""
    scored = [(token, 0.0) for token in SPECIAL_TOKENS]
    scored += [(f"\N{LOWER ONE EIGHTH BLOCK}{word}", -1.0) for word in words]
    scored += [(letter, -10.0) for letter in (*ALPHABET, "\N{LOWER ONE EIGHTH BLOCK}")]
    return T5Tokenizer(vocab=scored, extra_ids=0, model_max_length=MAX_TOKENS)


def build_clip(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=CLIP_DIM,
            projection_dim=CLIP_DIM,
            intermediate_size=4 * CLIP_DIM,
            num_hidden_layers=3,
            num_attention_heads=2,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )


def build_t5(tokenizer: T5Tokenizer) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=T5_DIM,
            d_kv=16,
            d_ff=128,
            num_layers=2,
            num_heads=4,
            relative_attention_num_buckets=16,
            relative_attention_max_distance=16,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            pad_token_id=0,
            eos_token_id=1,
            use_cache=False,
        )
    )


def clip_without_projection(text: TextParts) -> CLIPTextModel:
    """Return the first CLIP encoder as the class that Stable Diffusion XL and Flux take."""
    clip = CLIPTextModel(text.clip.config)
    clip.load_state_dict(text.clip.text_model.state_dict())
    return clip.eval()


def token_ids(tokenizer: Any, captions: list[str]) -> torch.Tensor:
    """Return ids as the pipelines make them, (B, L)."""
    return tokenizer(
        captions,
        padding="max_length",
        max_length=MAX_TOKENS,
        truncation=True,
        return_tensors="pt",
    ).input_ids


def train_text_parts(training: ImageTextTraining, log_step: LogStep) -> TextParts:
    """Train all text encoders from scratch, on captions that are drawn afresh at each step."""
    words = caption_words(training)
    of_clip, of_t5 = build_clip_tokenizer(words), build_t5_tokenizer(words)
    torch.manual_seed(training.seed)
    clips = [build_clip(of_clip), build_clip(of_clip)]
    t5 = build_t5(of_t5)
    for encoder, stage in zip(clips, ("CLIP", "second CLIP"), strict=True):

        def read_clip(captions: list[str], encoder: Any = encoder) -> list[torch.Tensor]:
            read = encoder(token_ids(of_clip, captions), output_hidden_states=True)
            pooled = encoder.text_model(token_ids(of_clip, captions)).pooler_output
            return [read.text_embeds, pooled, read.hidden_states[-2].mean(dim=1)]

        _train(training, encoder, read_clip, stage, log_step)

    def read_t5(captions: list[str]) -> list[torch.Tensor]:
        return [t5(token_ids(of_t5, captions)).last_hidden_state.mean(dim=1)]

    _train(training, t5, read_t5, "T5", log_step)
    return TextParts(of_clip, clips[0], clips[1], of_t5, t5)


def _train(
    training: ImageTextTraining,
    encoder: torch.nn.Module,
    read: Callable[[list[str]], list[torch.Tensor]],
    stage: str,
    log_step: LogStep,
) -> None:
    """Teach each vector (B, D) that `read` returns the attributes of the captions."""
    generator = torch.Generator().manual_seed(training.seed)
    sizes = [vectors.shape[1] for vectors in read([""])]
    heads = [
        {name: torch.nn.Linear(size, len(values) + 1) for name, values in IMAGE_ATTRIBUTES.items()}
        for size in sizes
    ]
    parameters = list(encoder.parameters())
    for some in heads:
        for head in some.values():
            parameters += head.parameters()
    optimizer = torch.optim.AdamW(parameters, lr=training.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.learning_rate, total_steps=training.num_steps
    )
    encoder.train()
    for step in range(training.num_steps):
        images = [sample_image(generator) for _ in range(training.batch_size)]
        captions = [image_caption(image, generator) for image in images]
        targets = attribute_targets(images, captions)
        losses = [
            functional.cross_entropy(some[name](vectors), targets[name])
            for some, vectors in zip(heads, read(captions), strict=True)
            for name in IMAGE_ATTRIBUTES
        ]
        loss = torch.stack(losses).sum() / len(sizes)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        log_step(stage, step, loss.item())
    encoder.eval()
