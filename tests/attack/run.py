#!/usr/bin/env python3
"""Attacks on our programs over real sockets, each with a bound that must hold.

    run.py [--bin DIR] [--seed N] [--long] [--compare] [--jobs N] [--list] [WORDS...]

Runs the attacks whose names contain all of WORDS (every one without any). A name begins with the
line of docs/reliability.md that it belongs to. Each runs in a network namespace of its own.
`--long` takes the large sizes, for a run by hand; `--compare` also puts libtorrent under the same
attack where that can be done, for the table. The last line is the result.
"""

import argparse
import asyncio
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.join(os.path.dirname(HERE), "interop"))

import harness
from runner import Runner, run_one

# One address of an attacker, a network of an attacker's, and one of honest peers, beside those of
# the harness.
ADDRESSES = ["10.99.7.1/32", "10.99.8.0/24", "10.99.9.0/24"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1, help="of all chance")
    parser.add_argument("--long", action="store_true", help="large sizes")
    parser.add_argument("--compare", action="store_true", help="attack libtorrent too")
    Runner.add_arguments(parser, jobs=3)
    args = parser.parse_args()

    import attacks

    runner = Runner(__file__, "attack", attacks.ALL, args, ADDRESSES)
    if args.list:
        return runner.list()
    if case := runner.inside():
        world = attacks.World(os.path.abspath(args.bin), runner.folder_of(case), args)
        # What it measured is printed.
        return run_one(lambda: run(case, world), world.stop)

    runner.begin()
    return runner.run_all("--seed", str(args.seed), *["--long"] * args.long, *["--compare"] * args.compare)


async def attack(case, world):
    def tell(loop, context):
        # Connections that nobody has looked at when an attack ends.
        if not isinstance(context.get("exception"), asyncio.CancelledError):
            loop.default_exception_handler(context)

    asyncio.get_running_loop().set_exception_handler(tell)
    await case.run(world)


def run(case, world):
    asyncio.run(attack(case, world))
    if not (world.compare and case.compares):
        return
    world.stop()
    world.attack_libtorrent()
    try:
        asyncio.run(attack(case, world))
    except harness.Failure as failure:
        # Its bounds are not those of libtorrent.
        world.say(f"not within our bound: {failure}")


if __name__ == "__main__":
    sys.exit(main())
