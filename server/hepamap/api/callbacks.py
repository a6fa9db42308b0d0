"""The dispatcher of callbacks, beside the server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from hepamap.api.services import Services
from hepamap.delivery.dispatcher import Dispatcher
from hepamap.delivery.outbox import Outbox
from hepamap.delivery.sender import Sender


@asynccontextmanager
async def delivering(services: Services) -> AsyncIterator[None]:
    """Send callbacks until the block ends, where the settings allow any."""
    if not services.settings.callback_allow:
        yield
        return
    sender = Sender(services.callback_targets, services.callback_secrets, timeout_s=services.settings.callback_timeout_s)
    async with anyio.create_task_group() as group:
        group.start_soon(Dispatcher(Outbox(services.store.engine), sender).run)
        try:
            yield
        finally:
            group.cancel_scope.cancel()
