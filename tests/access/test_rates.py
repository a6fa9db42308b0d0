from __future__ import annotations

import pytest

from hepamap.access.errors import RateLimitedError
from hepamap.access.rates import RateLimiter


class Seconds:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_minute_of_requests_at_once_then_evenly() -> None:
    clock = Seconds()
    limiter = RateLimiter(6, clock=clock)
    for _ in range(6):
        limiter.take("a")
    with pytest.raises(RateLimitedError) as refused:
        limiter.take("a")
    assert refused.value.retry_after_s == 10
    clock.now = 9.9
    with pytest.raises(RateLimitedError) as refused:
        limiter.take("a")
    assert refused.value.retry_after_s == 1
    clock.now = 10.0
    limiter.take("a")
    with pytest.raises(RateLimitedError):
        limiter.take("a")


def test_callers_do_not_share() -> None:
    limiter = RateLimiter(1, clock=Seconds())
    limiter.take("a")
    limiter.take("b")
    with pytest.raises(RateLimitedError):
        limiter.take("a")


def test_no_more_than_a_minute_is_saved_up() -> None:
    clock = Seconds()
    limiter = RateLimiter(2, clock=clock)
    clock.now = 3600.0
    limiter.take("a")
    limiter.take("a")
    with pytest.raises(RateLimitedError):
        limiter.take("a")


def test_nought_means_no_limit() -> None:
    limiter = RateLimiter(0, clock=Seconds())
    for _ in range(1000):
        limiter.take("a")
