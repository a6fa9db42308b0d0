"""The same work on many things in several processes, results in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, TypeVar

from hepamap.errors import HepamapError
from hepamap.training.errors import WorkerLostError

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Failure:
    """An error of ours in a form that goes through a pipe."""

    kind: type[HepamapError]
    message: str
    cure: str


def run_all(
    work: Callable[..., Result], calls: Sequence[tuple[Any, ...]], workers: int, done: Callable[[int], None]
) -> list[Result]:
    """Call a function with each of some arguments.

    Args:
        work: a function of a module; it and its arguments must survive pickling where there are several workers.
        calls: arguments.
        workers: processes; 1 works in this one.
        done: told the number of a call when it is finished.

    Returns:
        Results in the order of the calls.

    Raises:
        HepamapError: the first that a call raised; the others are not begun.
        WorkerLostError: a process was killed.
    """
    if workers == 1 or len(calls) < 2:
        results = []
        for number, arguments in enumerate(calls):
            results.append(work(*arguments))
            done(number)
        return results
    # Fresh processes: a forked one would share OpenSlide's threads and locks.
    with ProcessPoolExecutor(min(workers, len(calls)), mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(_guarded, work, arguments): number for number, arguments in enumerate(calls)}
        try:
            return _collect(futures, done)
        except BrokenProcessPool as error:
            raise WorkerLostError(
                "A process that drew from slides was killed, most likely because memory ran out.",
                cure="Run the same command again with fewer --workers; it goes on where it was.",
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _collect(futures: dict[Future[Any], int], done: Callable[[int], None]) -> list[Any]:
    results: dict[int, Any] = {}
    for future in as_completed(futures):
        result = future.result()
        if isinstance(result, _Failure):
            raise result.kind(result.message, cure=result.cure)
        results[futures[future]] = result
        done(futures[future])
    return [results[number] for number in range(len(futures))]


def _guarded(work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        return work(*arguments)
    except HepamapError as error:
        return _Failure(type(error), error.message, error.cure)
