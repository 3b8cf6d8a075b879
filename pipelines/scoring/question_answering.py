"""Suppression: a visual question answering model says if the frames show what they must not."""

from pathlib import Path
from typing import Any

import torch

from pipelines.errors import ScoringError
from pipelines.scoring.pretrained import load_image_processor, load_model, load_tokenizer, pixels_of
from pipelines.scoring.scored_clip import ScoredClip, Scores

MAX_ANSWER_TOKENS = 8
YES = "yes"


class QuestionAnswering:
    """A model that answers a question about a picture in words, or by one of fixed answers.

    Args:
        folder: the folder of the weights, which were inspected.
        question: the question, with {negative} in it.
    """

    def __init__(self, folder: Path, device: torch.device, question: str) -> None:
        from transformers import AutoModelForVisualQuestionAnswering

        self._model = load_model(AutoModelForVisualQuestionAnswering, folder, device)
        self._tokenizer = load_tokenizer(folder)
        self._images = load_image_processor(folder)
        self._device = device
        self._question = question
        self._answer = self._generated if self._model.can_generate() else self._chosen
        answers = {str(answer).lower() for answer in (self._model.config.id2label or {}).values()}
        if self._answer == self._chosen and YES not in answers:
            raise ScoringError(
                f"{folder}: expected a model that generates text or has an answer 'yes'; its "
                f"{len(answers)} answers have none"
            )

    def score(self, clip: ScoredClip) -> Scores:
        """Ask about each text in each frame; a clip without a negative prompt has no figure."""
        if not clip.negatives:
            return Scores({})
        seen: list[bool] = []
        words: dict[str, str] = {}
        for negative in clip.negatives:
            question = self._question.format(negative=negative)
            answers = self._answer(question, clip.stills)
            seen += [answer.startswith(YES) for answer in answers]
            words[question] = ", ".join(answers)
        return Scores({"negative_seen": sum(seen) / len(seen)}, words)

    @torch.inference_mode()
    def _generated(self, question: str, stills_NHWC: Any) -> list[str]:
        """Return the answers of a model that writes them, as BLIP does."""
        tokens = self._tokens(question, len(stills_NHWC))
        found = self._model.generate(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            pixel_values=pixels_of(self._images, stills_NHWC, self._device),
            max_new_tokens=MAX_ANSWER_TOKENS,
            do_sample=False,
            num_beams=1,
        )
        texts = self._tokenizer.batch_decode(found, skip_special_tokens=True)
        return [text.strip().lower() for text in texts]

    @torch.inference_mode()
    def _chosen(self, question: str, stills_NHWC: Any) -> list[str]:
        """Return the answers of a model that chooses among fixed ones, as ViLT does."""
        tokens = self._tokens(question, len(stills_NHWC))
        pixels = self._images(images=list(stills_NHWC), return_tensors="pt").to(self._device)
        logits = self._model(**tokens, **pixels).logits
        labels = self._model.config.id2label
        return [str(labels[index]).lower() for index in logits.argmax(dim=-1).tolist()]

    def _tokens(self, question: str, num_pictures: int) -> Any:
        longest = getattr(self._model.config, "max_position_embeddings", None)
        longest = longest or self._model.config.text_config.max_position_embeddings
        return self._tokenizer(
            [question] * num_pictures, truncation=True, max_length=longest, return_tensors="pt"
        ).to(self._device)
