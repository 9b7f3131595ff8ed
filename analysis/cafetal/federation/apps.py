"""Parsl apps: a decorator that takes endpoints, and functions that travel by value."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import parsl
from parsl.dataflow.dflow import DataFlowKernel
from parsl.dataflow.futures import AppFuture

_SPECIFICATION = "parsl_resource_specification"
BY_VALUE = "cafetal_by_value"
"""The module that functions of `by_value` seem to come from."""


def python_app(
    function: Callable[..., Any] | None = None,
    *,
    executors: Sequence[str] | str = "all",
    parsl_resource_specification: Mapping[str, Any] | None = None,
    data_flow_kernel: DataFlowKernel | None = None,
    cache: bool = False,
    ignore_for_cache: Sequence[str] | None = None,
) -> Any:
    """Parsl's ``python_app``, with a resource specification in the decorator too.

    Parsl takes the specification at the call only (or as a keyword default of the function). Here a call's
    own entries override those of the decorator, key by key; behind a `FederatedExecutor` the function needs no
    parameter of that name.

    >>> @python_app(executors=["sites"], parsl_resource_specification={"endpoints": ["desy"]})
    ... def where(): ...
    >>> where(parsl_resource_specification={"endpoints": ["nebraska"]})  # doctest: +SKIP
    """
    standing = dict(parsl_resource_specification or {})

    def decorate(inner: Callable[..., Any]) -> Callable[..., AppFuture]:
        app = parsl.python_app(
            inner,
            data_flow_kernel=data_flow_kernel,
            cache=cache,
            executors=executors if isinstance(executors, str) else list(executors),
            ignore_for_cache=None if ignore_for_cache is None else list(ignore_for_cache),
        )

        @functools.wraps(inner)
        def call(*args: Any, **kwargs: Any) -> AppFuture:
            specification = {**standing, **kwargs.pop(_SPECIFICATION, {})}
            return app(*args, **kwargs, **({_SPECIFICATION: specification} if specification else {}))

        return call

    return decorate if function is None else decorate(function)


def by_value(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """The functions of a module of ours, made so that Parsl's serialiser sends their code.

    A function of an importable module would be sent as a name, and a site has no cafetal to look it up in.
    """
    namespace: dict[str, Any] = {"__name__": BY_VALUE}
    exec(compile(inspect.getsource(module), module.__name__, "exec"), namespace)
    del namespace["__builtins__"]
    return {name: value for name, value in namespace.items() if inspect.isfunction(value)}
