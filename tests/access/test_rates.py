from __future__ import annotations

import pytest

from hepamap.access.errors import RateLimitedError
from hepamap.access.rates import RateLimiter, Recent, origin_of


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


def test_who_has_used_up_a_minute_can_be_told_without_counting() -> None:
    clock = Seconds()
    limiter = RateLimiter(2, clock=clock)
    limiter.take("a")
    assert not limiter.exhausted("a")
    limiter.take("a")
    assert limiter.exhausted("a")
    assert not limiter.exhausted("b")
    clock.now = 30.0
    assert not limiter.exhausted("a")
    assert not RateLimiter(0).exhausted("a")


def test_recent_secrets_are_bounded_and_can_be_forgotten() -> None:
    recent = Recent(2)
    for secret in ("a", "b", "a", "c"):
        recent.add(secret)
    assert ["a" in recent, "b" in recent, "c" in recent] == [True, False, True]
    recent.forget("a")
    recent.forget("never")
    assert "a" not in recent


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unknown", "unknown"),
    ],
)
def test_one_machine_is_one_origin(address: str, origin: str) -> None:
    assert origin_of(address) == origin
