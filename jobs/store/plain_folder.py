"""An output that is written as a plain folder: `./out`, `out`, `~/out` or `/data/out`.

Decides which texts mean a folder, and finds its absolute path. A relative one lies in the working
folder of the process that reads it, which must be the folder of a user and not a copy of Ray's.
"""

import os
import re
from pathlib import Path

from jobs.errors import OutputUriError

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it for a driver that `ray job submit` started


def is_plain_folder(written: str) -> bool:
    """Return True for a text without a scheme such as `s3:`. A folder `a:b` is `./a:b`."""
    return written != "" and SCHEME.match(written) is None


def absolute_folder(written: str) -> Path:
    """Return the absolute path of a folder. No link is resolved, as other nodes may have others.

    Raises:
        OutputUriError: the path is unclear, or it is relative in a job whose working folder goes
            with it.
    """
    try:
        path = Path(written).expanduser() if written.startswith("~") else Path(written)
        base = Path("/") if path.is_absolute() else Path.cwd()
    except (RuntimeError, OSError) as error:  # no such user, no home, no working folder any more
        raise OutputUriError(f"{written!r}: {error}; write the whole path") from error
    if path.is_absolute():
        names = list(path.parts[1:])
    else:
        _refuse_in_job(written)
        if "//" in written:  # more likely a URI without its colon
            raise OutputUriError(
                f"{written!r} holds an empty segment; expected s3://bucket/prefix or a folder such "
                "as ./out"
            )
        names = list(path.parts)
    while names[:1] == [".."]:
        base, names = base.parent, names[1:]
    if ".." in names:  # behind a link it would not lead to where the text says
        raise OutputUriError(f"{written!r} holds a '..' behind a name; write the path without it")
    return base.joinpath(*names)


def _refuse_in_job(written: str) -> None:
    if RAY_JOB in os.environ:
        raise OutputUriError(
            f"{written!r} is relative, and a job of `ray job submit` works in a copy that Ray "
            "removes; expected s3://bucket/prefix, or the absolute path of a folder that all nodes "
            "share"
        )
