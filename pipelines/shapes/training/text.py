"""The text side of the Shapes models: a T5 tokenizer, and a stock text encoder at tiny size.

Decides the vocabulary and the size of the encoder: `UMT5EncoderModel` for Wan, `T5EncoderModel` for
LTX. The encoder learns to read each attribute, or that it is left open, from a caption alone. The
transformer is then trained on its frozen tokens.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import T5Config, T5EncoderModel, T5Tokenizer, UMT5Config, UMT5EncoderModel

from pipelines.shapes.captions import caption
from pipelines.shapes.training.running.checkpoints import Learning
from pipelines.shapes.training.running.stage import Running
from pipelines.shapes.world import ATTRIBUTES, ShapesClip, sample_clip

TEXT_DIM = 64
MAX_TOKENS = 48  # the longest caption has 46
VOCABULARY_SIZE = 220
ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,;:!?'\"()-"
SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>")  # T5's ids 0, 1, 2
TextEncoder = UMT5EncoderModel | T5EncoderModel


@dataclass(frozen=True)
class TextTraining:
    """The length and speed of the text encoder's training."""

    num_steps: int = 1200
    batch_size: int = 128
    learning_rate: float = 2e-3
    num_tokenizer_captions: int = 20_000
    seed: int = 1


def train_tokenizer(training: TextTraining) -> T5Tokenizer:
    """Train a Unigram vocabulary: whole words for the captions, single letters for other text."""
    generator = torch.Generator().manual_seed(training.seed)
    captions = [
        caption(sample_clip(generator, anywhere=True), generator)
        for _ in range(training.num_tokenizer_captions)
    ]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        unk_token="<unk>",  # noqa: S106
        initial_alphabet=list(ALPHABET),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    scores = dict(_scores(tokenizer))
    return T5Tokenizer(vocab=[(token, scores[token]) for token, _ in vocabulary], extra_ids=0)


def _scores(tokenizer: Tokenizer) -> list[tuple[str, float]]:
    import json

    return [
        (token, float(score)) for token, score in json.loads(tokenizer.to_str())["model"]["vocab"]
    ]


def build_text_encoder(vocabulary_size: int, family: Literal["wan", "ltx"]) -> TextEncoder:
    """Build the untrained text encoder that the pipeline of this family has."""
    classes: Any = (UMT5Config, UMT5EncoderModel) if family == "wan" else (T5Config, T5EncoderModel)
    config_class, model_class = classes
    config = config_class(
        vocab_size=vocabulary_size,
        d_model=TEXT_DIM,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        relative_attention_num_buckets=16,
        relative_attention_max_distance=32,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
        use_cache=False,
    )
    return model_class(config)


@dataclass(frozen=True, eq=False)
class EncodedCaptions:
    """Captions as the pipeline of the family encodes them."""

    embeds: torch.Tensor  # (B, L, D), zero behind each caption's last token
    attention_mask: torch.Tensor  # (B, L), 1 up to each caption's last token


def encode_captions(
    tokenizer: T5Tokenizer, encoder: TextEncoder, captions: list[str], max_tokens: int
) -> EncodedCaptions:
    """Encode as `WanPipeline` does, and as `LTXPipeline` does up to the tokens that its mask hides.

    `LTXPipeline` does not mask padding in its encoder, so `max_tokens` changes its tokens.
    """
    tokens = tokenizer(
        captions,
        padding="max_length",
        max_length=max_tokens,
        truncation=True,
        add_special_tokens=True,
        return_tensors="pt",
    )
    tokens = tokens.to(encoder.device)
    encoders_mask = tokens.attention_mask if isinstance(encoder, UMT5EncoderModel) else None
    hidden_BLD = encoder(tokens.input_ids, encoders_mask).last_hidden_state
    return EncodedCaptions(hidden_BLD * tokens.attention_mask.unsqueeze(-1), tokens.attention_mask)


def attribute_targets(clips: list[ShapesClip], captions: list[str]) -> dict[str, torch.Tensor]:
    """Return the class of each attribute that a caption names.

    The class after the last means "left open".
    """
    return {
        attribute: torch.tensor(
            [
                values.index(getattr(clip, attribute))
                if _is_named(attribute, clip, text)
                else len(values)
                for clip, text in zip(clips, captions, strict=True)
            ]
        )
        for attribute, values in ATTRIBUTES.items()
    }


def _is_named(attribute: str, clip: ShapesClip, text: str) -> bool:
    value = getattr(clip, attribute)
    if value == "still":
        return any(words in text.lower() for words in ("still", "rest", "not move"))
    return value in text.lower().replace(",", " ").split()


def train_text_encoder(
    training: TextTraining, tokenizer: T5Tokenizer, family: Literal["wan", "ltx"], running: Running
) -> TextEncoder:
    """Train from scratch on captions that are drawn afresh at each step."""
    torch.manual_seed(training.seed)
    generator = torch.Generator().manual_seed(training.seed)
    encoder = build_text_encoder(len(tokenizer), family).train()
    heads = torch.nn.ModuleDict(
        {name: torch.nn.Linear(TEXT_DIM, len(values) + 1) for name, values in ATTRIBUTES.items()}
    )
    learned = torch.nn.ModuleDict({"encoder": encoder, "heads": heads})
    optimizer = torch.optim.AdamW(learned.parameters(), lr=training.learning_rate)
    learning = Learning(learned, [optimizer], generator)
    for step in running.steps("text_encoder", training.num_steps, learning):
        clips = [sample_clip(generator, anywhere=True) for _ in range(training.batch_size)]
        captions = [caption(clip, generator) for clip in clips]
        pooled_BD = encode_captions(tokenizer, encoder, captions, MAX_TOKENS).embeds.sum(dim=1) / 8
        losses = [
            functional.cross_entropy(heads[attribute](pooled_BD), target)
            for attribute, target in attribute_targets(clips, captions).items()
        ]
        loss = torch.stack(losses).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned.parameters(), 1.0)
        optimizer.step()
        step.log(loss.item())
    return encoder.eval()
