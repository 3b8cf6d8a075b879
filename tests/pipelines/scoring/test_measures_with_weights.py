"""Measures with weights, by real transformers classes: against the same figures made by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    BlipForQuestionAnswering,
    CLIPModel,
    Dinov2Model,
    SiglipModel,
    ViltForQuestionAnswering,
)

from pipelines.errors import ScoringError
from pipelines.scoring.image_features import ImageFeatures
from pipelines.scoring.image_reward import DEVIATION, MEAN
from pipelines.scoring.measures import DEFAULT_QUESTION, MeasureSpec, read_measure
from pipelines.scoring.registry import load_measure
from pipelines.scoring.scored_clip import Measure, ScoredClip
from pipelines.scoring.scorer_weights import find_weights
from tests.builders import scorers

CPU = torch.device("cpu")
BUILD: dict[str, Callable[[Path], Path]] = {
    "clip": scorers.clip_folder,
    "hps": scorers.clip_folder,
    "reward": scorers.reward_folder,
    "vqa": scorers.blip_folder,
    "fid": scorers.dino_folder,
    "pfid": scorers.dino_folder,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a measure's weights, which is built once."""
    built: dict[str, Path] = {}

    def folder(name: str) -> Path:
        build = BUILD[name]
        if build.__name__ not in built:
            built[build.__name__] = build(tmp_path_factory.mktemp(build.__name__))
        return built[build.__name__]

    return folder


def loaded(name: str, folder: Path) -> Measure:
    return load_measure(find_weights(read_measure(f"{name}={folder}", 2, DEFAULT_QUESTION)), CPU)


def clip_of(prompt: str, *negatives: str, num: int = 2) -> ScoredClip:
    return ScoredClip(prompt, negatives, scorers.pictures(num), np.zeros((0, 8, 8, 3), np.uint8))


def test_the_clip_score_is_a_hundred_times_the_mean_cosine(folders: Callable[[str], Path]) -> None:
    found = loaded("clip", folders("clip")).score(clip_of("a red fox", "snow", "blue"))
    model: Any = CLIPModel.from_pretrained(folders("clip"))
    tokenizer = AutoTokenizer.from_pretrained(folders("clip"))
    pixels = AutoImageProcessor.from_pretrained(folders("clip"), backend="pil")(
        images=[Image.fromarray(one) for one in scorers.pictures(2)], return_tensors="pt"
    )["pixel_values"]
    with torch.no_grad():
        image = model.get_image_features(pixel_values=pixels).pooler_output.double()
        for figure, text in (("prompt", "a red fox"), ("negative", "snow, blue")):
            ids: Any = tokenizer(text, return_tensors="pt")  # without padding
            read = model.get_text_features(**ids).pooler_output.double()
            cosines = torch.nn.functional.cosine_similarity(image, read)
            expected = 100 * cosines.clamp_min(0).mean()
            assert found.figures[figure] == pytest.approx(float(expected), rel=1e-5, abs=1e-5)
    assert found.figures["prompt"] != found.figures["negative"]


def test_siglip_reads_a_text_padded_to_its_length(tmp_path: Path) -> None:
    folder = scorers.siglip_folder(tmp_path)
    found = loaded("clip", folder).score(clip_of("a red fox"))
    model: Any = SiglipModel.from_pretrained(folder)
    pixels = AutoImageProcessor.from_pretrained(folder, backend="pil")(
        images=list(scorers.pictures(2)), return_tensors="pt"
    )["pixel_values"]
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    figures: list[float] = []
    with torch.no_grad():
        image = model.get_image_features(pixel_values=pixels).pooler_output
        for padding in ("max_length", "do_not_pad"):
            ids = tokenizer("a red fox", padding=padding, max_length=12, return_tensors="pt")
            read = model.get_text_features(input_ids=ids["input_ids"]).pooler_output
            cosines = torch.nn.functional.cosine_similarity(image, read)
            figures.append(float(100 * cosines.clamp_min(0).mean()))
    assert found.figures["prompt"] == pytest.approx(figures[0], rel=1e-4, abs=1e-5)
    assert figures[0] != pytest.approx(figures[1], rel=1e-3), "the padding is read"


def test_a_clip_without_a_negative_prompt_has_no_figure_of_one(
    folders: Callable[[str], Path],
) -> None:
    assert set(loaded("clip", folders("clip")).score(clip_of("a fox")).figures) == {"prompt"}
    assert loaded("vqa", folders("vqa")).score(clip_of("a fox")).figures == {}


def test_hps_is_the_cosine_itself(folders: Callable[[str], Path]) -> None:
    model: Any = loaded("hps", folders("hps"))
    clip = clip_of("a red fox")
    cosines = model.cosines([clip.prompt], clip.stills)
    assert model.score(clip).figures == {"preference": pytest.approx(float(cosines.mean()))}
    assert cosines.abs().max() <= 1


def test_image_reward_is_blip_made_by_hand_from_the_authors_names(
    folders: Callable[[str], Path],
) -> None:
    """The vision part is computed here from the tensors, in float64."""
    folder = folders("reward")
    measure: Any = loaded("reward", folder)
    clip = clip_of("a red fox")
    weights = {
        name: tensor.double()
        for name, tensor in load_file(folder / "ImageReward.safetensors").items()
    }
    pixels = measure._images(images=list(clip.stills), return_tensors="pt")["pixel_values"]
    seen = vision_by_hand(weights, pixels.double())
    with torch.no_grad():
        found = measure._vision(pixel_values=pixels).last_hidden_state.double()
    torch.testing.assert_close(found, seen, rtol=1e-4, atol=1e-5)
    tokens = measure._tokenizer(
        [clip.prompt] * 2, padding="max_length", max_length=35, return_tensors="pt"
    )
    with torch.no_grad():
        read = measure._text(
            tokens["input_ids"], tokens["attention_mask"], encoder_hidden_states=seen.float()
        ).last_hidden_state[:, 0]
    reward = read.double()
    for at in (0, 2, 4):
        reward = reward @ weights[f"mlp.layers.{at}.weight"].T + weights[f"mlp.layers.{at}.bias"]
    expected = ((reward - MEAN) / DEVIATION).mean()
    assert measure.score(clip).figures["preference"] == pytest.approx(float(expected), rel=1e-4)
    other = measure.score(clip_of("blue snow")).figures["preference"]
    assert other != pytest.approx(float(expected), rel=1e-4), "the prompt is read"


def vision_by_hand(weights: dict[str, torch.Tensor], pixels: torch.Tensor) -> torch.Tensor:
    def of(name: str) -> torch.Tensor:
        return weights[f"blip.visual_encoder.{name}"]

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return torch.nn.functional.layer_norm(
            x, x.shape[-1:], of(f"{name}.weight"), of(f"{name}.bias"), 1e-6
        )

    patches = torch.nn.functional.conv2d(
        pixels, of("patch_embed.proj.weight"), of("patch_embed.proj.bias"), stride=8
    )
    tokens = patches.flatten(2).transpose(1, 2)
    x = torch.cat([of("cls_token").expand(len(tokens), -1, -1), tokens], 1) + of("pos_embed")
    query, key, value = (
        norm(x, "blocks.0.norm1") @ of("blocks.0.attn.qkv.weight").T + of("blocks.0.attn.qkv.bias")
    ).chunk(3, dim=-1)
    query, key, value = (
        part.unflatten(-1, (2, -1)).transpose(1, 2) for part in (query, key, value)
    )
    heads = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1) @ value
    joined = heads.transpose(1, 2).flatten(2)
    x = x + joined @ of("blocks.0.attn.proj.weight").T + of("blocks.0.attn.proj.bias")
    inner = norm(x, "blocks.0.norm2") @ of("blocks.0.mlp.fc1.weight").T + of(
        "blocks.0.mlp.fc1.bias"
    )
    x = x + torch.nn.functional.gelu(inner) @ of("blocks.0.mlp.fc2.weight").T
    return norm(x + of("blocks.0.mlp.fc2.bias"), "norm")


def test_a_model_that_answers_yes_to_everything_sees_everything(
    folders: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = scorers.blip_folder(tmp_path)
    for word, expected in (("yes", 1.0), ("no", 0.0)):
        make_answer(folder, word)
        found = loaded("vqa", folder).score(clip_of("a fox", "snow", "red circle"))
        assert found.figures == {"negative_seen": expected}
        assert found.words["is there a red circle?"].startswith(word)


def make_answer(folder: Path, word: str) -> None:
    """Change the last bias of a BLIP, so that each token that it writes is one word."""
    model: Any = BlipForQuestionAnswering.from_pretrained(folder)
    head = model.text_decoder.cls.predictions
    head.bias.data.zero_()
    head.bias.data[scorers.bert_tokenizer().convert_tokens_to_ids(word)] = 100.0
    model.save_pretrained(folder)


def test_a_model_of_fixed_answers_is_asked_too(tmp_path: Path) -> None:
    folder = scorers.vilt_folder(tmp_path)
    model: Any = ViltForQuestionAnswering.from_pretrained(folder)
    model.classifier[-1].bias.data = torch.tensor([0.0, 50.0])
    model.save_pretrained(folder)
    assert loaded("vqa", folder).score(clip_of("a fox", "snow")).figures == {"negative_seen": 1.0}


def test_a_model_that_cannot_say_yes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScoringError, match="an answer 'yes'"):
        loaded("vqa", scorers.vilt_folder(tmp_path, answers=("two", "three")))


def test_a_feature_is_the_models_pooled_output(folders: Callable[[str], Path]) -> None:
    measure: Any = loaded("fid", folders("fid"))
    vectors = measure.score(clip_of("", num=3)).vectors
    model = Dinov2Model.from_pretrained(folders("fid"))
    pixels = AutoImageProcessor.from_pretrained(folders("fid"), backend="pil")(
        images=list(scorers.pictures(3)), return_tensors="pt"
    )["pixel_values"]
    with torch.no_grad():
        expected = model(pixels).pooler_output
    np.testing.assert_allclose(vectors, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_a_patch_is_the_middle_in_its_own_pixels(folders: Callable[[str], Path]) -> None:
    patches: Any = loaded("pfid", folders("pfid"))
    whole: Any = loaded("fid", folders("fid"))
    still = scorers.picture(1, 24, 40)
    np.testing.assert_array_equal(patches.vector(still), whole.vector(still[4:20, 12:28]))
    with pytest.raises(ScoringError, match="a patch of 16 pixels needs frames at least as large"):
        patches.vector(scorers.picture(1, 15, 40))


def test_weights_that_a_folder_lacks_are_an_error_and_not_drawn_at_random(
    folders: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = scorers.dino_folder(tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["layernorm.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ScoringError, match=r"lacks 1 weights, such as layernorm.weight"):
        loaded("fid", folder)
    with pytest.raises(ScoringError, match="lacks"):
        ImageFeatures(folder, CPU, is_patch=False)


def test_a_pickle_is_refused_with_the_remedy(tmp_path: Path) -> None:
    folder = scorers.dino_folder(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ScoringError, match="is a pickle, convert it to safetensors"):
        find_weights(MeasureSpec("fid", str(folder)))


def test_weights_that_are_not_on_this_machine_are_refused_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ScoringError, match="hf download owner/clip-model"):
        find_weights(MeasureSpec("clip", "owner/clip-model"))
    with pytest.raises(ScoringError, match="must hold a CLIPModel or SiglipModel"):
        find_weights(MeasureSpec("clip", str(tmp_path / "gone")))


def test_other_weights_under_the_same_name_are_noticed(folders: Callable[[str], Path]) -> None:
    found = find_weights(MeasureSpec("fid", str(folders("fid"))))
    assert found.spec.revision.startswith("sha256:")
    assert found.spec.source == f"folder:{folders('fid').name}"
    with pytest.raises(ScoringError, match="expected the weights sha256:0"):
        find_weights(MeasureSpec("fid", str(folders("fid")), "sha256:0"))
