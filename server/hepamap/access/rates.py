"""How often somebody may ask: a token bucket for each."""

from __future__ import annotations

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
            tokens, then = self._buckets.pop(who, (float(self._per_minute), now))
            tokens = min(float(self._per_minute), tokens + (now - then) * rate)
            allowed = tokens >= 1.0
            tokens -= allowed
            self._buckets[who] = (tokens, now)
            if len(self._buckets) > _KEPT:
                self._buckets.popitem(last=False)
        if not allowed:
            wait_s = math.ceil((1.0 - tokens) / rate)
            raise RateLimitedError(
                f"More than {self._per_minute} requests a minute came from this caller.",
                cure=f"Wait {wait_s} s, then ask less often; the operator can raise the limit (HEPAMAP_REQUESTS_PER_MINUTE).",
                retry_after_s=wait_s,
            )
