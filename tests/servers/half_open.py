"""Clients that begin requests and never end them: `python half_open.py URL CLIENTS SECONDS`.

A third says nothing, a third sends headers a byte at a time, a third a body. They come from 50
addresses of this machine. Each that is closed is opened again. It prints how many were opened.
"""

from __future__ import annotations

import asyncio
import sys
from urllib.parse import urlsplit

POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1000\r\n\r\n{"
BEGUN = (b"", b"GET / HTTP/1.1\r\nhost: 127", POST)


async def hold(host: str, port: int, number: int, opened: list[int]) -> None:
    begun, source = BEGUN[number % 3], (f"127.0.0.{2 + number % 50}", 0)
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, port, local_addr=source)
            opened[0] += 1
            writer.write(begun)
            while True:
                try:
                    async with asyncio.timeout(1.0):
                        if not await reader.read(4_096):
                            break
                except TimeoutError:
                    writer.write(b"x" if begun else b"")
            writer.close()
        except OSError:
            pass
        await asyncio.sleep(1.0)


async def main(url: str, clients: int, seconds: float) -> None:
    where, opened = urlsplit(url), [0]
    tasks = [
        asyncio.create_task(hold(where.hostname or "", where.port or 80, number, opened))
        for number in range(clients)
    ]
    await asyncio.sleep(seconds)
    print(opened[0], flush=True)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
