"""Server-sent events: what has just changed, to everybody who listens."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

from torchvitals.agent.rows import encode_json

WAITING_EVENTS = 256
"""A listener that is this far behind loses the oldest; it reads the whole picture when it reconnects."""
HEARTBEAT_SECONDS = 15.0
"""Proxies cut connections that are silent for a minute."""


class Broadcast:
    """Hands events from the agent's threads to the listeners of the event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: dict[asyncio.Queue[str | None], asyncio.AbstractEventLoop] = {}
        self._closed = False

    def publish(self, event: str, data: Any) -> None:
        """Tell everybody; from any thread."""
        with self._lock:
            listeners = list(self._listeners.items())
        if listeners:
            text = f"event: {event}\ndata: {encode_json(data)}\n\n"
            for queue, loop in listeners:
                loop.call_soon_threadsafe(_put, queue, text)

    def close(self) -> None:
        """End all streams, so that the server can stop."""
        with self._lock:
            self._closed = True
            listeners = list(self._listeners.items())
        for queue, loop in listeners:
            loop.call_soon_threadsafe(_put, queue, None)

    async def listen(self) -> AsyncIterator[str]:
        """The events from now on, with a comment when nothing happens for a while."""
        queue: asyncio.Queue[str | None] = asyncio.Queue(WAITING_EVENTS)
        with self._lock:
            self._listeners[queue] = asyncio.get_running_loop()
        try:
            yield "retry: 2000\n\n"
            while not self._closed:
                text = await _next(queue)
                if text is None:
                    return
                yield text
        finally:
            with self._lock:
                self._listeners.pop(queue, None)


async def _next(queue: "asyncio.Queue[str | None]") -> str | None:
    try:
        return await asyncio.wait_for(queue.get(), HEARTBEAT_SECONDS)
    except TimeoutError:
        return ": alive\n\n"


def _put(queue: "asyncio.Queue[str | None]", text: str | None) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(text)
