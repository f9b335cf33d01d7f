"""What a user is told when something cannot be written names what helps against it."""

import errno
import os
from pathlib import Path

import pytest

from semicdvl.outputs.messages import make_output_error


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EACCES, "Allow writing there"),
        (errno.EISDIR, "Delete the folder"),
        (errno.EMFILE, "Allow more open files (ulimit -n)"),
        (errno.ENFILE, "Allow more open files (ulimit -n)"),
    ],
)
def test_the_remedy_fits_the_reason(code: int, remedy: str) -> None:
    message = str(make_output_error(Path("out"), OSError(code, os.strerror(code))))
    assert message.startswith(f"out: cannot be written ({os.strerror(code)}). {remedy}")
    assert ("-o" in message) == ("ulimit" not in message)
