"""Sends what is due in the outbox, beside the server."""

from __future__ import annotations

import anyio
import structlog
from anyio import to_thread
from anyio.abc import TaskGroup

from hepamap.delivery.outbox import Delivery, DeliveryState, Outbox
from hepamap.delivery.sender import Sender
from hepamap.jobs.errors import JobStoreError

_log = structlog.stdlib.get_logger(__name__)

_AT_ONCE = 16
_POLL_S = 1.0
_AFTER_FAILURE_S = 5.0


class Dispatcher:
    """Takes deliveries and sends them, several at a time, so that one receiver that hangs does not hold up the others."""

    def __init__(self, outbox: Outbox, sender: Sender, *, poll_s: float = _POLL_S) -> None:
        self._outbox = outbox
        self._sender = sender
        self._poll_s = poll_s
        self._under_way = 0

    async def run(self) -> None:
        """Send until cancelled. What is cut off then is due again later, and sent a second time."""
        async with self._sender, anyio.create_task_group() as group:
            while True:
                await anyio.sleep(self._poll_s if await self._begin(group) else _AFTER_FAILURE_S)

    async def _begin(self, group: TaskGroup) -> bool:
        """Begin to send what is due; False where that cannot be found out."""
        free = _AT_ONCE - self._under_way
        if free <= 0:
            return True
        try:
            due = await to_thread.run_sync(self._outbox.take, free)
        except JobStoreError as error:
            _log.warning("outbox_unavailable", reason=error.because)
            return False
        except Exception:
            # The last resort: what escapes from here would end the server's task group, and all that runs beside it.
            _log.exception("outbox_crashed")
            return False
        for delivery in due:
            self._under_way += 1
            group.start_soon(self._deliver, delivery)
        return True

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            attempt = await self._sender.send(delivery)
            state = await to_thread.run_sync(self._outbox.settle, delivery, attempt)
            # Without the address: it may hold what only the receiver is to know.
            log = _log.info if state is DeliveryState.DELIVERED else _log.warning
            log("callback", delivery=delivery.id, job=delivery.job_id, state=state, status=attempt.status, reason=attempt.error)
        except JobStoreError as error:
            _log.warning("outbox_unavailable", reason=error.because)
        except Exception:
            # The last resort: what fails in a way that nobody foresaw must not take the other deliveries with it.
            _log.exception("callback_crashed", delivery=delivery.id)
        finally:
            self._under_way -= 1
