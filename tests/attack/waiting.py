"""Waiting for what is to come true, on the loop that the attacks run on."""

import asyncio
import time


async def holds(condition, seconds, step=0.05):
    """Whether `condition` comes to hold within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(step)
    return True
