"""The ffmpeg program: where it is, how it is run, and the class of its failures."""

import errno
import signal
import subprocess

import imageio_ffmpeg

from jobs.errors import EncodeError, EncoderKilledError
from jobs.failures import is_machine_failure, is_out_of_memory, reports_full_disk

STDERR_LINES_SHOWN = 8


def run_ffmpeg(arguments: list[str], frames: memoryview) -> bytes:
    """Run ffmpeg with `frames` on its standard input and return its standard output.

    Raises:
        EncodeError: ffmpeg is missing or failed; the message holds its last lines.
        EncoderKilledError: ffmpeg was killed.
        OSError: the machine is out of memory or files, or its disk is full.
    """
    try:
        command = [
            find_ffmpeg(),
            "-hide_banner",
            "-nostdin",
            "-loglevel",
            "error",
            "-y",
            *arguments,
        ]
        finished = subprocess.run(command, input=frames, capture_output=True, check=False)
    except OSError as error:
        if is_out_of_memory(error) or is_machine_failure(error):
            raise
        raise EncodeError(f"cannot start ffmpeg: {error}") from error
    if finished.returncode == -signal.SIGKILL:
        raise EncoderKilledError("ffmpeg was killed, as by a machine that is out of memory")
    if finished.returncode != 0:
        said = finished.stderr.decode(errors="replace").strip()
        last_lines = "\n".join(said.splitlines()[-STDERR_LINES_SHOWN:]) or "without a message"
        message = f"ffmpeg failed with code {finished.returncode}: {last_lines}"
        if reports_full_disk(said):
            raise OSError(errno.ENOSPC, message)
        raise EncodeError(message)
    return finished.stdout


def find_ffmpeg() -> str:
    """Return the path of the ffmpeg that encodes clips.

    Raises:
        EncodeError: ffmpeg is missing.
    """
    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise EncodeError(f"no ffmpeg: {error}") from error
