import re
import subprocess
from dataclasses import replace
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from jobs.errors import CheckError, EncodeError
from jobs.media.boxes import read_tracks
from jobs.media.decode_check import check_mp4, decode_mp4
from jobs.media.encode import encode_mp4, encoding_arguments
from jobs.media.sound import decode_sound, facts_of
from jobs.media.tags import read_metadata
from jobs.settings.run_config import EncodingConfig
from jobs.types import AudioFacts
from pipelines.request import AudioTrack, VideoFrames, VideoShape

FAST = EncodingConfig(preset="ultrafast")
SHAPE = VideoShape(9, 32, 48)
FPS = 8.0


def tone(sample_rate: int = 24_000, channels: int = 2, duration_s: float = 9 / FPS) -> AudioTrack:
    time_s = np.arange(round(duration_s * sample_rate)) / sample_rate
    waves = [0.4 * np.sin(2 * np.pi * 220 * (1 + one) * time_s) for one in range(channels)]
    return AudioTrack(np.stack(waves, axis=1).astype(np.float32), sample_rate)


def clip(audio: AudioTrack | None) -> VideoFrames:
    frames = np.random.default_rng(0).integers(0, 256, (9, 32, 48, 3), np.uint8)
    return VideoFrames(frames, FPS, audio)


@pytest.fixture(scope="module")
def mp4(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("sound") / "clip.mp4"
    encode_mp4(clip(tone()), path, FAST, {"clip_id": "x"})
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path, mp4: bytes) -> Path:
    (tmp_path / "clip.mp4").write_bytes(mp4)
    return tmp_path / "clip.mp4"


@pytest.mark.parametrize(("sample_rate", "channels"), [(24_000, 2), (48_000, 2), (16_000, 1)])
def test_sound_comes_back_with_its_rate_channels_and_length(
    tmp_path: Path, sample_rate: int, channels: int
) -> None:
    audio = tone(sample_rate, channels)
    path = tmp_path / "clip.mp4"
    encode_mp4(clip(audio), path, FAST, {})
    assert [(one.codec, one.channels) for one in read_tracks(path)] == [
        ("avc1", 0),
        ("mp4a", channels),
    ]
    heard = decode_sound(path, channels)
    assert heard.shape == audio.samples.shape
    error = (heard - audio.samples)[2048:-2048]
    assert np.sqrt(np.mean(error**2)) < 0.03
    check_mp4(path, SHAPE, FPS, facts_of(audio))


def test_an_mp4_with_sound_keeps_frames_tags_index_and_bytes(tmp_path: Path, path: Path) -> None:
    again = tmp_path / "again.mp4"
    encode_mp4(clip(tone()), again, FAST, {"clip_id": "x"})
    content = path.read_bytes()
    assert content == again.read_bytes()
    assert not re.search(rb"Lavf|Lavc\d|x264 - core", content)
    assert 0 < content.find(b"moov") < content.find(b"mdat")
    assert read_metadata(path) == {"clip_id": "x"}
    silent = tmp_path / "silent.mp4"
    encode_mp4(clip(None), silent, FAST, {"clip_id": "x"})
    assert (decode_mp4(path).frames == decode_mp4(silent).frames).all()
    assert {one.name for one in tmp_path.iterdir()} == {"clip.mp4", "again.mp4", "silent.mp4"}


def test_a_clip_without_sound_is_encoded_as_before_there_was_sound() -> None:
    arguments = encoding_arguments(clip(None), EncodingConfig(), Path("/folder"))
    filters = arguments[arguments.index("-vf") + 1]
    assert " ".join(one for one in arguments if one != filters) == (
        "-f rawvideo -pixel_format rgb24 -video_size 48x32 -framerate 8/1 -i pipe:0 "
        "-f ffmetadata -i file:/folder/tags.txt -map 0:v -map_metadata 1 -map_chapters -1 -vf "
        "-c:v libx264 -preset medium -crf 16 -threads 4 -color_primaries bt709 -color_trc bt709 "
        "-colorspace bt709 -color_range tv -bsf:v filter_units=remove_types=6 -flags:v +bitexact "
        "-fflags +bitexact -movflags +use_metadata_tags+faststart -f mp4 file:/folder/clip.mp4"
    )


def test_a_higher_bit_rate_takes_more_bytes(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (27_000, 2)).astype(np.float32)
    sizes: list[int] = []
    for kbit_s in (32, 256):
        path = tmp_path / f"{kbit_s}.mp4"
        config = replace(FAST, audio_kbit_s=kbit_s)
        encode_mp4(clip(AudioTrack(noise, 24_000)), path, config, {})
        sizes.append(path.stat().st_size)
    assert sizes[1] > 1.5 * sizes[0]


@pytest.mark.parametrize(
    "audio",
    [
        AudioTrack(np.zeros((900, 3), np.float32), 24_000),
        AudioTrack(np.zeros(900, np.float32), 24_000),
        AudioTrack(np.zeros((900, 2), np.float64), 24_000),
        AudioTrack(np.zeros((0, 2), np.float32), 24_000),
        AudioTrack(np.zeros((900, 2), np.float32), 24_001),
    ],
)
def test_sound_that_aac_would_change_is_refused(tmp_path: Path, audio: AudioTrack) -> None:
    with pytest.raises(EncodeError, match="sound must"):
        encode_mp4(clip(audio), tmp_path / "clip.mp4", FAST, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (None, r"expected one video track and no sound, found video \(avc1\), sound \(mp4a\)"),
        (AudioFacts("aac", 48_000, 2, 9 / FPS), "48000 Hz, 2 channels, found mp4a, 24000 Hz"),
        (AudioFacts("aac", 24_000, 1, 9 / FPS), "24000 Hz, 1 channels, found mp4a, 24000 Hz, 2"),
        (AudioFacts("aac", 24_000, 2, 1.5), "expected 1.5 s of sound, within one frame, found"),
    ],
)
def test_other_sound_than_expected_is_named(
    path: Path, audio: AudioFacts | None, message: str
) -> None:
    with pytest.raises(CheckError, match=message):
        check_mp4(path, SHAPE, FPS, audio)


def test_sound_of_another_length_than_the_video_is_refused(tmp_path: Path) -> None:
    audio = tone(duration_s=0.5)
    encode_mp4(clip(audio), tmp_path / "clip.mp4", FAST, {})
    with pytest.raises(CheckError, match=r"expected 1\.125 s of sound, as the video, within one"):
        check_mp4(tmp_path / "clip.mp4", SHAPE, FPS, facts_of(audio))


def test_a_clip_that_lacks_its_sound_is_refused(tmp_path: Path) -> None:
    encode_mp4(clip(None), tmp_path / "clip.mp4", FAST, {})
    with pytest.raises(CheckError, match=r"one of sound, found video \(avc1\)"):
        check_mp4(tmp_path / "clip.mp4", SHAPE, FPS, facts_of(tone()))


def test_a_third_track_is_refused(tmp_path: Path, path: Path) -> None:
    twice = tmp_path / "twice.mp4"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path)]
    command += ["-map", "0:v", "-map", "0:a", "-map", "0:a", "-c", "copy", str(twice)]
    subprocess.run(command, check=True)
    with pytest.raises(CheckError, match=r"sound \(mp4a\), sound \(mp4a\)"):
        check_mp4(twice, SHAPE, FPS, facts_of(tone()))


def test_sound_that_is_damaged_is_refused(path: Path, mp4: bytes) -> None:
    marks = bytearray(mp4)
    for place in range(len(mp4) - 4000, len(mp4), 3):  # the last packets are sound
        marks[place] ^= 0xFF
    path.write_bytes(marks)
    with pytest.raises(CheckError):
        check_mp4(path, SHAPE, FPS, facts_of(tone()))


def test_the_facts_of_sound_are_plain_values() -> None:
    facts = facts_of(tone(16_000, 1))
    assert facts == AudioFacts("aac", 16_000, 1, 1.125)
    assert str(facts) == "aac, 16 kHz mono"
    assert facts_of(None) is None
