"""The sound of a clip as AAC: the samples for ffmpeg, its arguments, and the samples decoded again.

The rate and the channels stay as the model made them. Samples beyond full scale, of which the
checks of sound allow a share, become full scale, as any player would play them.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from jobs.errors import CheckError, EncodeError
from jobs.media.ffmpeg import run_ffmpeg
from jobs.types import AudioFacts
from pipelines.request import AudioTrack

if TYPE_CHECKING:
    import numpy as np

CODEC = "aac"
# Rates that AAC has and browsers play.
SAMPLE_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
LAYOUTS = {1: "mono", 2: "stereo"}


def facts_of(audio: AudioTrack | None) -> AudioFacts | None:
    """Return the facts of a clip's sound as its MP4 has them; None without sound."""
    if audio is None:
        return None
    num_samples, channels = audio.samples.shape
    return AudioFacts(CODEC, audio.sample_rate, channels, num_samples / audio.sample_rate)


def check_audio(audio: AudioTrack) -> None:
    """Refuse sound that AAC cannot hold as it is.

    Raises:
        EncodeError: saying what was expected and what came.
    """
    samples = audio.samples
    if samples.ndim != 2 or samples.shape[1] not in LAYOUTS or samples.dtype.name != "float32":
        raise EncodeError(
            "sound must be a float32 array (N, channels) with 1 or 2 channels, not "
            f"{samples.dtype} {samples.shape}"
        )
    if len(samples) == 0 or audio.sample_rate not in SAMPLE_RATES:
        raise EncodeError(
            f"sound must have samples, and {', '.join(map(str, SAMPLE_RATES))} of them a second, "
            f"not {len(samples)} at {audio.sample_rate}"
        )


def write_samples(audio: AudioTrack, path: Path) -> None:
    """Write samples as ffmpeg reads them: 32-bit floats, the channels of a moment together."""
    import numpy as np

    np.clip(audio.samples, -1, 1).astype("<f4").tofile(path)


def input_arguments(audio: AudioTrack, samples: Path) -> list[str]:
    """Return ffmpeg's arguments that read a file of `write_samples`."""
    return [
        *("-f", "f32le", "-ar", str(audio.sample_rate), "-ac", str(audio.samples.shape[1])),
        *("-i", f"file:{samples}"),
    ]


def output_arguments(kbit_s: int) -> list[str]:
    """Return ffmpeg's arguments that encode the sound, without the library's version inside."""
    return ["-c:a", CODEC, "-b:a", f"{kbit_s}k", "-flags:a", "+bitexact"]


def decode_sound(path: Path, channels: int) -> "np.ndarray":
    """Decode the sound of an MP4, all of it: (N, channels) float32.

    decord's reader of sound fails on many machines, so ffmpeg decodes it.

    Raises:
        CheckError: it does not decode, or has other channels.
        EncoderKilledError: ffmpeg was killed.
    """
    import numpy as np

    arguments = [
        *("-xerror", "-err_detect", "explode", "-i", f"file:{path.resolve()}"),
        *("-map", "0:a", "-f", "f32le", "pipe:1"),
    ]
    try:
        samples = np.frombuffer(run_ffmpeg(arguments, memoryview(b"")), "<f4")
    except EncodeError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[-1]
        raise CheckError(f"the sound of {path.name} does not decode: {reason}") from error
    if samples.size % channels:
        raise CheckError(f"the sound of {path.name} does not have {channels} channels")
    return samples.reshape(-1, channels)
