"""How often somebody may ask: a token bucket for each; and who has been seen lately."""

from __future__ import annotations

import hashlib
import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from hepamap.access.errors import RateLimitedError

# Of each bucket's minute: a client may use its whole minute at once after a pause.
_MINUTE_S = 60.0
# The least recently seen are forgotten: their buckets would be nearly full again, and memory stays bounded.
_KEPT = 10_000


class RateLimiter:
    """Token buckets in the memory of this process: each holds a minute's worth and fills evenly."""

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # who: (tokens, when)

    def exhausted(self, who: str) -> bool:
        """Whether the next `take` would be refused."""
        if self._per_minute == 0:
            return False
        with self._lock:
            return self._tokens(who, self._clock()) < 1.0

    def take(self, who: str) -> None:
        """Count one request.

        Raises:
            RateLimitedError: there was one too many; it is not counted.
        """
        if self._per_minute == 0:
            return
        rate = self._per_minute / _MINUTE_S
        with self._lock:
            now = self._clock()
            tokens = self._tokens(who, now)
            allowed = tokens >= 1.0
            tokens -= allowed
            self._buckets[who] = (tokens, now)
            self._buckets.move_to_end(who)
            if len(self._buckets) > _KEPT:
                self._buckets.popitem(last=False)
        if not allowed:
            wait_s = math.ceil((1.0 - tokens) / rate)
            raise RateLimitedError(
                f"More than {self._per_minute} requests a minute came from this caller.",
                cure=f"Wait {wait_s} s, then ask less often; the operator can raise the limit (HEPAMAP_REQUESTS_PER_MINUTE).",
                retry_after_s=wait_s,
            )

    def _tokens(self, who: str, now: float) -> float:
        full = float(self._per_minute)
        tokens, then = self._buckets.get(who, (full, now))
        return min(full, tokens + (now - then) * full / _MINUTE_S)


class Recent:
    """Secrets that were right lately, as their hashes; the least recently used are forgotten."""

    def __init__(self, most: int = _KEPT) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._hashes: OrderedDict[bytes, None] = OrderedDict()

    def __contains__(self, secret: str) -> bool:
        with self._lock:
            return _hash(secret) in self._hashes

    def add(self, secret: str) -> None:
        """Remember one."""
        with self._lock:
            self._hashes[_hash(secret)] = None
            self._hashes.move_to_end(_hash(secret))
            if len(self._hashes) > self._most:
                self._hashes.popitem(last=False)

    def forget(self, secret: str) -> None:
        """Forget one that is not right any more."""
        with self._lock:
            self._hashes.pop(_hash(secret), None)


def origin_of(address: str) -> str:
    """What counts as one origin: an address of IPv4, and of IPv6 the /64, in which one machine has as many as it likes."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if found.version == 4:
        return str(found)
    return str(found.ipv4_mapped or ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
