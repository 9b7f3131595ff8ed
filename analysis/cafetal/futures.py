"""Futures put together: one after another, all of several, and one that always ends with a result."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar, cast

T = TypeVar("T")
U = TypeVar("U")


def done(value: T) -> Future[T]:
    """Return a future that has ended with a value."""
    future: Future[T] = Future()
    future.set_result(value)
    return future


def then(
    future: Future[T],
    act: Callable[[T], U | Future[U]],
    *,
    outcome: Future[U] | None = None,
    catch: Callable[[BaseException], BaseException] = lambda error: error,
) -> Future[U]:
    """Return a future of what ``act`` makes of the result of another one, which may be a future again.

    Args:
        act: called in the thread that ends the other future; what it raises is the outcome.
        outcome: the future to end; by default a new one.
        catch: makes another error of one that the other future, or ``act``, has raised.
    """
    ending: Future[U] = Future() if outcome is None else outcome

    def finish(ended: Future[T]) -> None:
        try:
            value = act(ended.result())
        except BaseException as error:
            ending.set_exception(catch(error))
            return
        if isinstance(value, Future):
            then(value, lambda result: result, outcome=ending, catch=catch)
        else:
            ending.set_result(value)

    future.add_done_callback(finish)
    return ending


def in_thread(act: Callable[[], T], name: str) -> Future[T]:
    """Return the future of a call in a daemon thread of its own."""
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(act())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True, name=name).start()
    return future


def all_of(futures: Sequence[Future[Any]]) -> Future[None]:
    """Return a future that ends when all have ended, or with the first error."""
    ended: Future[None] = Future()
    left, counting = len(futures), threading.Lock()

    def count(future: Future[Any]) -> None:
        nonlocal left
        error = CancelledError() if future.cancelled() else future.exception()
        with counting:
            left -= 1
            if ended.done():
                return
            if error is not None:
                ended.set_exception(error)
            elif not left:
                ended.set_result(None)

    for future in futures:
        future.add_done_callback(count)
    if not futures:
        ended.set_result(None)
    return ended


def settle(
    future: Future[object],
    read: Callable[[object], T],
    on_error: Callable[[BaseException], T],
    *,
    within: float | None = None,
    late: BaseException | None = None,
    given_up: Future[Exception] | None = None,
) -> Future[T]:
    """Return a future that always ends with a result: what ``read`` makes of another one's, or of the error.

    Args:
        read: makes the result; what it raises is an error too.
        on_error: makes a result of an error.
        within: after so many seconds ``late`` is the error, and what comes afterwards is ignored.
        given_up: once this future has ended, what it holds is the error, likewise.
    """
    settled: Future[T] = Future()
    ending = threading.Lock()

    def end(value: T) -> None:
        with ending:
            if not settled.done():
                settled.set_result(value)

    def finish(ended: Future[object]) -> None:
        try:
            value = read(ended.result())
        except BaseException as error:
            value = on_error(error)
        end(value)

    future.add_done_callback(finish)
    if given_up is not None:
        given_up.add_done_callback(lambda reason: end(on_error(reason.result())))
    if within is not None and not settled.done():
        timer = after(within, lambda: end(on_error(cast(BaseException, late))))
        settled.add_done_callback(lambda _: timer.cancel())
    return settled


def after(seconds: float, act: Callable[[], object]) -> threading.Timer:
    """Call something after so many seconds, in a daemon thread; return the timer, which can be cancelled."""
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()
    return timer


def retry(
    attempt: Callable[[], Future[T]],
    again: Callable[[T, int], float | None],
    *,
    failed: Callable[[Exception], T],
) -> Future[T]:
    """Return the result of the first attempt after which there is not to be another.

    Args:
        attempt: begins one; its future always ends with a result.
        again: tells, by the result and the number of attempts so far, after how many seconds there is to be another.
        failed: makes a result of what ``attempt`` itself raises, which is the last one then.
    """
    outcome: Future[T] = Future()

    def begin(number: int) -> None:
        try:
            future = attempt()
        except Exception as error:
            outcome.set_result(failed(error))
            return
        future.add_done_callback(lambda ended: judge(ended.result(), number))

    def judge(result: T, number: int) -> None:
        pause = again(result, number)
        if pause is None:
            outcome.set_result(result)
        elif pause:
            after(pause, lambda: begin(number + 1))
        else:
            begin(number + 1)

    begin(1)
    return outcome
