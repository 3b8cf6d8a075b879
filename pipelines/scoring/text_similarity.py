"""CLIP score and HPSv2: the similarity of a text and pictures, by two encoders that match.

Shape suffixes: N pictures, D features.
"""

from pathlib import Path
from typing import Any

import torch

from pipelines.scoring.pretrained import load_image_processor, load_model, load_tokenizer, pixels_of
from pipelines.scoring.scored_clip import ScoredClip, Scores


class TextSimilarity:
    """A CLIPModel or SiglipModel with its processors.

    Args:
        folder: the folder of the weights, which were inspected.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        from transformers import AutoModel, SiglipModel

        self._model = load_model(AutoModel, folder, device)
        self._tokenizer = load_tokenizer(folder)
        self._images = load_image_processor(folder)
        self._device = device
        self._reads_padding = isinstance(self._model, SiglipModel)  # it was trained without a mask
        text_config: Any = self._model.config.text_config
        self._max_tokens = int(text_config.max_position_embeddings)

    @torch.inference_mode()
    def cosines(self, texts: list[str], stills_NHWC: Any) -> torch.Tensor:
        """Return the cosine of each picture and each text, (N, number of texts).

        A text is cut behind the tokens that the model can read, 77 for CLIP.
        """
        tokens = self._tokenizer(
            texts,
            padding="max_length",  # as SigLIP was trained; CLIP does not look behind the end
            truncation=True,
            max_length=self._max_tokens,
            return_tensors="pt",
        ).to(self._device)
        if self._reads_padding:
            tokens.pop("attention_mask", None)
        pixels = pixels_of(self._images, stills_NHWC, self._device)
        found = self._model(**tokens, pixel_values=pixels)
        image_ND = torch.nn.functional.normalize(found.image_embeds.float(), dim=-1)
        text_ND = torch.nn.functional.normalize(found.text_embeds.float(), dim=-1)
        return (image_ND @ text_ND.T).cpu()


class ClipScore(TextSimilarity):
    """The CLIP score of the prompt, and of what the clip must not show.

    Source: Hessel et al., CLIPScore, arXiv 2104.08718, with the weight 100 that most papers use in
    the place of 2.5.
    """

    def score(self, clip: ScoredClip) -> Scores:
        texts = [clip.prompt, ", ".join(clip.negatives)]
        cosines = self.cosines(texts[: 1 + bool(clip.negatives)], clip.stills)
        means = (100 * cosines.clamp_min(0)).mean(dim=0).tolist()
        return Scores(dict(zip(("prompt", "negative"), means, strict=False)))


class Hps(TextSimilarity):
    """The preference of HPSv2: the plain cosine.

    Source: Wu et al., Human Preference Score v2, arXiv 2306.09341.
    """

    def score(self, clip: ScoredClip) -> Scores:
        return Scores({"preference": self.cosines([clip.prompt], clip.stills).mean().item()})
