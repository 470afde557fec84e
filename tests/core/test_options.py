"""Every option: what is allowed, what it is by default, and what is said of anything else."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import nimblepool
from nimblepool import Backoff, CircuitBreaker, CoDel, PoolOptions, open_pool, serve_pool
from nimblepool._options import Settings
from nimblepool.testing import FakeWorker

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULTS = {
    "name": "pool",
    "min_size": 0,
    "max_size": 10,
    "order": "lifo",
    "strict_size": False,
    "max_opening": None,
    "checkout_timeout": 5.0,
    "max_waiting": None,
    "max_hold": None,
    "max_idle": None,
    "max_age": None,
    "max_uses": None,
    "ping_every": None,
    "ping_batch": 4,
    "ping_after": None,
    "init_timeout": 30.0,
    "reset_timeout": 5.0,
    "ping_timeout": 5.0,
    "terminate_timeout": 5.0,
    "close_grace": None,
    "on_open_failure": "raise",
    "on_death": "remove",
    "backoff": Backoff(base=1.0, cap=30.0, jitter="full"),
    "breaker": CircuitBreaker(threshold=5),
    "shedding": None,
    "observers": (),
}

COUNTS = {"min_size": 0, "max_size": 1, "ping_batch": 1}
OPTIONAL_COUNTS = {"max_opening": 1, "max_waiting": 0, "max_uses": 1}
TIMES = ["init_timeout", "reset_timeout", "ping_timeout", "terminate_timeout"]
OPTIONAL_TIMES_WITH_ZERO = ["checkout_timeout", "max_idle", "ping_after", "close_grace"]
OPTIONAL_TIMES = ["max_hold", "max_age", "ping_every"]
CHOICES = {"order": ["lifo", "fifo"], "on_open_failure": ["raise", "wait", "each"], "on_death": ["remove", "cancel"]}
PARTS = {"backoff": "Backoff", "breaker": "CircuitBreaker", "shedding": "CoDel"}


def test_the_options_that_are_typed_are_those_that_are_checked() -> None:
    assert list(PoolOptions.__annotations__) == [field.name for field in dataclasses.fields(Settings)]


def test_the_defaults() -> None:
    settings = Settings()
    assert {field.name: getattr(settings, field.name) for field in dataclasses.fields(Settings)} == DEFAULTS
    assert CoDel() == CoDel(target=0.05, interval=2.0)


def test_every_option_says_what_it_means_and_its_default() -> None:
    assert nimblepool.__file__ is not None
    source = Path(nimblepool.__file__).with_name("_options.py").read_text(encoding="utf-8")
    for name in DEFAULTS:
        assert re.search(rf'^    {name}: .+\n    """', source, re.MULTILINE), f"{name} has no text"


def test_every_option_is_tested_here() -> None:
    tested = {*COUNTS, *OPTIONAL_COUNTS, *TIMES, *OPTIONAL_TIMES_WITH_ZERO, *OPTIONAL_TIMES, *CHOICES, *PARTS}
    assert tested | {"name", "strict_size", "observers"} == set(DEFAULTS)


def settings(**options: Any) -> Settings:  # noqa: ANN401 - wrong on purpose
    return Settings(**options)


def refusal(error: type[Exception], **options: Any) -> str:  # noqa: ANN401 - wrong on purpose
    with pytest.raises(error) as caught:
        Settings(**options)
    return str(caught.value)


@pytest.mark.parametrize(("name", "least"), [*COUNTS.items(), *OPTIONAL_COUNTS.items()])
def test_counts(name: str, least: int) -> None:
    assert refusal(ValueError, **{name: least - 1}) == f"{name} must be {least} or more, not {least - 1}"
    for wrong in (1.5, "3", True):
        assert refusal(TypeError, **{name: wrong}) == f"{name} must be a whole number, not {wrong!r}"
    settings(**{name: least})


@pytest.mark.parametrize("name", COUNTS)
def test_counts_that_are_needed(name: str) -> None:
    assert refusal(TypeError, **{name: None}) == f"{name} must be a whole number, not None"


def test_min_size_is_at_most_max_size() -> None:
    assert refusal(ValueError, min_size=5, max_size=4) == "min_size must be at most max_size (4), not 5"
    assert refusal(ValueError, min_size=11) == "min_size must be at most max_size (10), not 11"
    Settings(min_size=4, max_size=4)


@pytest.mark.parametrize("name", [*TIMES, *OPTIONAL_TIMES])
def test_times(name: str) -> None:
    for wrong in (0, 0.0, -1, math.nan, -math.inf):
        text = f"{name} must be more than 0 (seconds; math.inf for no limit), not {wrong!r}"
        assert refusal(ValueError, **{name: wrong}) == text
    for nonsense in ("5", True, [5]):
        assert refusal(TypeError, **{name: nonsense}) == f"{name} must be a number of seconds, not {nonsense!r}"
    for right in (1, 0.001, math.inf):
        settings(**{name: right})


@pytest.mark.parametrize("name", OPTIONAL_TIMES_WITH_ZERO)
def test_times_that_may_be_zero(name: str) -> None:
    for wrong in (-1, math.nan):
        text = f"{name} must be 0 or more (seconds; math.inf for no limit), not {wrong!r}"
        assert refusal(ValueError, **{name: wrong}) == text
    assert refusal(TypeError, **{name: "5"}) == f"{name} must be a number of seconds, not '5'"
    for right in (0, 1, 0.001, math.inf):
        settings(**{name: right})


@pytest.mark.parametrize("name", [*OPTIONAL_TIMES, *OPTIONAL_TIMES_WITH_ZERO, *OPTIONAL_COUNTS, "breaker", "shedding"])
def test_none_means_off(name: str) -> None:
    assert getattr(settings(**{name: None}), name) is None


@pytest.mark.parametrize("name", TIMES)
def test_the_deadlines_of_callbacks_cannot_be_off(name: str) -> None:
    assert refusal(TypeError, **{name: None}) == f"{name} must be a number of seconds, not None"


@pytest.mark.parametrize(("name", "choices"), CHOICES.items())
def test_choices(name: str, choices: list[str]) -> None:
    allowed = " or ".join(map(repr, choices))
    for wrong in ("LIFO", "", None, 1):
        assert refusal(ValueError, **{name: wrong}) == f"{name} must be {allowed}, not {wrong!r}"
    for right in choices:
        settings(**{name: right})


@pytest.mark.parametrize(("name", "kind"), PARTS.items())
def test_parts(name: str, kind: str) -> None:
    for wrong in (5, "full", object):
        assert kind in refusal(TypeError, **{name: wrong})


def test_backoff_cannot_be_off() -> None:
    assert "Backoff" in refusal(TypeError, backoff=None)


def wrong(value: object) -> Any:  # noqa: ANN401 - past the type checkers
    return value


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: Backoff(base=0), ValueError, "Backoff.base must be more than 0"),
        (lambda: Backoff(cap=math.nan), ValueError, "Backoff.cap must be more than 0"),
        (lambda: Backoff(base=2, cap=1), ValueError, "Backoff.cap must be at least Backoff.base (2), not 1"),
        (lambda: Backoff(jitter=wrong("some")), ValueError, "Backoff.jitter must be 'full' or 'none', not 'some'"),
        (lambda: CircuitBreaker(0), ValueError, "CircuitBreaker.threshold must be 1 or more, not 0"),
        (lambda: CircuitBreaker(wrong("5")), TypeError, "CircuitBreaker.threshold must be a whole number, not '5'"),
        (lambda: CoDel(target=0), ValueError, "CoDel.target must be more than 0"),
        (lambda: CoDel(interval=-1), ValueError, "CoDel.interval must be more than 0"),
    ],
)
def test_what_the_parts_allow(make: Callable[[], object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=re.escape(text)):
        make()


@pytest.mark.parametrize("wrong", [5, None, b"db"])
def test_the_name_is_text(wrong: object) -> None:
    assert "name must be" in refusal(TypeError, name=wrong)


@pytest.mark.parametrize("wrong", ["yes", 1, None])
def test_strict_size_is_a_truth(wrong: object) -> None:
    assert "strict_size must be" in refusal(TypeError, strict_size=wrong)


@pytest.mark.parametrize("wrong", [5, None])
async def test_observers_come_in_an_iterable(wrong: Any) -> None:  # noqa: ANN401 - wrong on purpose
    with pytest.raises(TypeError, match="observers must be"):
        async with open_pool(FakeWorker(), observers=wrong):
            raise AssertionError("not reached")


def test_an_unknown_option_is_named() -> None:
    assert "max_sise" in refusal(TypeError, max_sise=10)


def test_options_are_named() -> None:
    with pytest.raises(TypeError):
        Settings("db")  # type: ignore[call-arg,misc,unused-ignore]  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("options", [{"max_size": 0}, {"min_size": 11}, {"order": "random"}])
async def test_a_bad_option_comes_out_of_open_pool_and_starts_nothing(options: Any) -> None:  # noqa: ANN401
    worker = FakeWorker()
    with pytest.raises(ValueError, match=next(iter(options))):
        async with open_pool(worker, **options):
            raise AssertionError("not reached")
    with pytest.raises(ValueError, match=next(iter(options))):
        await serve_pool(worker, **options)
    assert worker.calls == []


async def test_an_unknown_option_comes_out_of_open_pool() -> None:
    with pytest.raises(TypeError, match="max_sise"):
        async with open_pool(FakeWorker(), max_sise=10):  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
            raise AssertionError("not reached")


async def test_an_option_that_does_not_exist_is_named_with_the_one_that_may_be_meant() -> None:
    options: dict[str, Any] = {"max_sise": 3}
    with pytest.raises(TypeError, match=r"a pool has no option 'max_sise'; did you mean 'max_size'\?"):
        async with open_pool(FakeWorker(), **options):
            pass
