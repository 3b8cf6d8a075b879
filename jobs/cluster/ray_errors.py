"""What of Ray's error texts is said to people: they run over many lines."""


def first_line(error: BaseException) -> str:
    """What happened."""
    return next(
        (line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__
    )


def last_line(error: BaseException) -> str:
    """Where Ray hands on a traceback, the error itself."""
    return str(error).rstrip().splitlines()[-1].strip()
