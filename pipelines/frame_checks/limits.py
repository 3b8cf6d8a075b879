"""The limits of the checks of frames and sound, and the words that allow a clip beyond them.

Part of a model's YAML (`frame_checks:`). `checks` measures the frames, `sound` the sound. Loads
without torch.
"""

import math
import re
from dataclasses import dataclass, fields

from pipelines.errors import ModelConfigError

BLACK_WORDS = (
    "black", "blackness", "blackout", "dark", "darkness", "dim", "night", "nighttime", "midnight",
    "nocturnal", "shadow", "shadows", "silhouette", "space", "starry", "cave", "lights out", "fade",
    "fades", "fading",
)  # fmt: skip
FLAT_WORDS = (
    "fog", "foggy", "mist", "misty", "haze", "hazy", "smoke", "plain", "blank", "empty", "solid",
    "uniform", "gradient", "white", "whiteness", "whiteout", "gray", "grey", "monochrome",
    "minimalist", "screen", "background", "backdrop", "wall", "overcast", "underwater",
)  # fmt: skip
FROZEN_WORDS = (
    "still", "static", "frozen", "freeze", "motionless", "stationary", "unmoving", "immobile",
    "paused", "at rest", "does not move", "not moving", "without motion", "no motion", "photo",
    "photograph", "painting", "picture", "image", "drawing", "poster", "statue",
)  # fmt: skip
NOISE_WORDS = (
    "noise", "noisy", "static", "snow", "snowy", "snowstorm", "blizzard", "rain", "rainy", "hail",
    "confetti", "glitter", "glitch", "glitchy", "grain", "grainy", "pixelated", "mosaic",
    "checkerboard", "strobe", "strobing", "stroboscopic", "flash", "flashing", "flicker",
    "flickering", "lightning", "fireworks", "psychedelic", "neon", "kaleidoscope", "abstract",
)  # fmt: skip
SILENCE_WORDS = (
    "silent", "silence", "silently", "soundless", "noiseless", "mute", "muted", "no sound",
    "no audio", "without sound", "without audio",
)  # fmt: skip


@dataclass(frozen=True)
class FrameLimits:
    """The limits of a model's clips; None switches a check off.

    The defaults are for models without measurements: they rather miss a bad clip than refuse a
    good one. The limits change no pixel, so a clip's id does not depend on them.

    Args:
        spread: root mean square of the latents, above which they have exploded; normalised latents
            have about 1.
        black: brightness below which a clip is black, in levels of 0 to 255.
        flat: contrast below which a clip is flat, in levels.
        frozen: motion below which a clip is frozen, in levels.
        grain: difference of neighbouring pixels, above which a clip is noise; white noise has 1.
        flicker: difference of neighbouring frames, above which a clip is noise; unrelated frames
            have 1.
        saturation: share of pixels in a fully saturated colour, above which a clip is noise.
        silence: root mean square of the sound, in parts of full scale, below which it is silent.
        clipping: share of the sound's samples at full scale or beyond, above which it is clipped.
        black_words: words of a prompt, whole and in any case, that ask for a black clip and so
            allow it; an empty list allows none.
        flat_words: words that allow a flat clip.
        frozen_words: words that allow a frozen clip.
        noise_words: words that allow a noisy clip.
        silence_words: words that allow a silent clip.
    """

    spread: float | None = 10.0
    black: float | None = 12.0
    flat: float | None = 1.0
    frozen: float | None = 0.05
    grain: float | None = 0.7
    flicker: float | None = 0.9
    saturation: float | None = 0.5
    silence: float | None = 0.0001
    clipping: float | None = 0.1
    black_words: tuple[str, ...] = BLACK_WORDS
    flat_words: tuple[str, ...] = FLAT_WORDS
    frozen_words: tuple[str, ...] = FROZEN_WORDS
    noise_words: tuple[str, ...] = NOISE_WORDS
    silence_words: tuple[str, ...] = SILENCE_WORDS

    def words_of(self, check: str) -> tuple[str, ...]:
        """Return the words that allow a clip beyond one limit.

        No word allows exploded latents or clipped sound.
        """
        words = {
            "black": self.black_words,
            "flat": self.flat_words,
            "frozen": self.frozen_words,
            "silence": self.silence_words,
            "spread": (),
            "clipping": (),
        }
        return words.get(check, self.noise_words)

    def __post_init__(self) -> None:
        for name, most in (
            ("spread", math.inf),
            ("black", 255.0),
            ("flat", 127.5),  # half black and half white: nothing deviates by more
            ("frozen", 255.0),
            ("grain", 2.0),  # alternating pixels have 2
            ("flicker", 2.0),
            ("saturation", 1.0),
            ("silence", 1.0),
            ("clipping", 1.0),
        ):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and 0 < value <= most):
                upper = f" and at most {most:g}" if math.isfinite(most) else ""
                raise ModelConfigError(
                    f"frame_checks.{name} must be above 0{upper}, or null for no limit, not {value}"
                )
        for field in fields(self):
            words: tuple[str, ...] = (
                getattr(self, field.name) if field.name.endswith("_words") else ()
            )
            if any(not word.strip() for word in words):
                raise ModelConfigError(f"frame_checks.{field.name} holds an empty word")


def asks_for(prompt: str, words: tuple[str, ...]) -> bool:
    """Return True if the prompt holds one of the words, whole and in any case."""
    either = "|".join(re.escape(word.strip()) for word in words)
    return (
        bool(words) and re.search(rf"(?<!\w)(?:{either})(?!\w)", prompt, re.IGNORECASE) is not None
    )
