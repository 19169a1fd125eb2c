"""What the suites in Python share: the end of a case, and waiting for something."""

import time


class Failure(Exception):
    """What a case ends with when something is not as it must be."""


def check(condition, what):
    if not condition:
        raise Failure(what)


def wait_for(what, condition, seconds=60):
    """The first true value of `condition`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failure(f"waited {seconds} s for {what}")
        time.sleep(0.03)
