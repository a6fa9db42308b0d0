"""Sends one callback: signed, to the address that was checked, without redirects, within a time."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Self

import anyio
import httpx
from anyio import to_thread

import hepamap
from hepamap.delivery.errors import CallbackError
from hepamap.delivery.outbox import Attempt, Delivery
from hepamap.delivery.signature import Secrets, signature_of
from hepamap.delivery.targets import TargetPolicy


class Sender:
    """Sends callbacks; an asynchronous context manager."""

    def __init__(self, policy: TargetPolicy, secrets: Secrets, *, timeout_s: float, now: Callable[[], float] = time.time) -> None:
        self._policy = policy
        self._secrets = secrets
        self._timeout_s = timeout_s
        self._now = now
        # The system's certificates, where a hospital puts its own; and no proxy: it would resolve the name again.
        context = ssl.create_default_context()
        self._client = httpx.AsyncClient(
            verify=context, trust_env=False, follow_redirects=False, timeout=timeout_s, headers={"Connection": "close"}
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def send(self, delivery: Delivery) -> Attempt:
        """Try once. The answer counts where its status is 2xx; its body is not read."""
        at, started = datetime.now(UTC), time.monotonic()
        status, error = await self._try(delivery)
        return Attempt(at, round(time.monotonic() - started, 3), status, error)

    async def _try(self, delivery: Delivery) -> tuple[int | None, str | None]:
        try:
            # All together, also where the receiver sends a byte now and then.
            with anyio.fail_after(self._timeout_s):
                status = await self._post(delivery)
        except TimeoutError:
            return None, f"no answer within {self._timeout_s:g} s"
        except CallbackError as refused:
            return None, refused.message[:200]
        except (httpx.HTTPError, httpx.InvalidURL) as failure:
            return None, f"{type(failure).__name__}: {failure}"[:200]
        return status, None if 200 <= status < 300 else f"the answer was {status}"

    async def _post(self, delivery: Delivery) -> int:
        target = await to_thread.run_sync(self._policy.target_of, delivery.url, abandon_on_cancel=True)
        secret = await to_thread.run_sync(self._secrets.get, delivery.secret_id)
        url = httpx.URL(target.url)
        body = delivery.body.encode()
        timestamp = int(self._now())
        request = self._client.build_request(
            "POST",
            url.copy_with(host=target.address),
            content=body,
            headers={
                "Host": url.netloc.decode("ascii"),
                "Content-Type": "application/json",
                "User-Agent": f"hepamap/{hepamap.__version__}",
                "Hepamap-Event": delivery.event,
                "Hepamap-Delivery": delivery.id,
                "Hepamap-Timestamp": str(timestamp),
                "Hepamap-Secret-Id": delivery.secret_id,
                "Hepamap-Signature": signature_of(secret, timestamp, body),
            },
            # The certificate must be that of the name, although the line goes to its address.
            extensions={"sni_hostname": target.host},
        )
        response = await self._client.send(request, stream=True)
        await response.aclose()
        return response.status_code
