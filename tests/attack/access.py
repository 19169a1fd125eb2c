"""Attacks on the daemon by others on its machine, and through what it is told to fetch: lines 26
and 27."""

import asyncio
import json
import os

from harness import HOST, Failure, free_port, listening

import wire
from wire import Torrent

MIB = 1 << 20


class Daemon:
    def __init__(self, world, *more):
        self.port = free_port("127.0.0.1")
        at = world.path("daemon")
        os.makedirs(at, exist_ok=True)
        self.process = world.program(
            "torrent-daemon", "--port", self.port, "--listen", f"{HOST}:{free_port(HOST)}", "--rpc-port", 0,
            "--state", f"{at}/daemon.sqlite", "--torrents", f"{at}/torrents", "--downloads", f"{at}/downloads", *more,
        )

    async def up(self):
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 20
        while not listening(self.port, "127.0.0.1"):
            self.process.must_run()
            if loop.time() > deadline:
                raise Failure("the daemon does not listen")
            await asyncio.sleep(0.05)
        return self

    async def ask(self, method, path, body=None, headers=()):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=16 << 20)
        data = b"" if body is None else json.dumps(body).encode()
        head = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", "Connection: close", "Content-Type: application/json", f"Content-Length: {len(data)}", *headers]
        writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + data)
        try:
            answer = await asyncio.wait_for(reader.read(), 30)
        finally:
            writer.close()
        head, _, rest = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), rest


async def secrets_of_others(world):
    """A local user without the owner's token has the daemon share a file that only the daemon's
    user can read, and write a `.torrent` where it likes."""
    daemon = await Daemon(world).up()
    secret = world.path("secret")
    with open(secret, "wb") as out:
        out.write(b"root:*:1::::::\n")
    status, _ = await daemon.ask("POST", "/seed", {"input": secret})
    planted = world.path("planted.torrent")
    second, _ = await daemon.ask("POST", "/seed", {"input": secret, "torrent_out": planted})
    world.say(f"seeding a secret file got {status}, with a `.torrent` written elsewhere {second}")
    if status < 400 or second < 400 or os.path.exists(planted):
        raise Failure("any local user may have any file shared")


async def inner_addresses(world):
    """A `.torrent` names a tracker on the machine's own loopback, and a URL for its administration."""
    asked = []

    async def serve(reader, writer):
        try:
            asked.append((await asyncio.wait_for(reader.readuntil(b"\r\n"), 5)).split(b" ")[1])
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    daemon = await Daemon(world).up()
    torrent = Torrent("content.bin", world.content(MIB), 64 << 10, f"http://127.0.0.1:{port}/admin/reboot?really=yes&x=")
    at = torrent.write_to(world.path("evil.torrent"))
    tool = world.program("torrent-leech", "--port", daemon.port, "--torrent", at)
    await asyncio.get_running_loop().run_in_executor(None, tool.wait, 20)
    deadline = asyncio.get_running_loop().time() + 8
    while not asked and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.1)
    world.say(f"requests that reached loopback: {len(asked)}")
    if asked:
        raise Failure(f"`{asked[0].decode()[:60]}` was requested on loopback")


CASES = [
    ("27", "secrets of others", secrets_of_others),
    ("26", "requests into the own network", inner_addresses),
]
