"""Parsl apps: a decorator that takes endpoints, and functions that travel by value."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import symtable
from collections.abc import Callable, Iterator, Mapping, Sequence
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


def joined_source(*modules: ModuleType) -> str:
    """Return the source of modules of ours as that of one, without what they import of each other."""
    return "\n\n".join(re.sub(r"^from \..*\n", "", inspect.getsource(module), flags=re.MULTILINE) for module in modules)


@functools.cache
def by_value(module: ModuleType, *others: ModuleType) -> dict[str, Callable[..., Any]]:
    """Return the functions of a module of ours, made so that Parsl's serialiser sends their code.

    A function of an importable module would be sent as a name, and a site has no cafetal to look it up in. With each
    goes what it uses of its module and of the others, and no other function, as all of it is sent with every task;
    docstrings stay here.
    """
    source = joined_source(module, *others)
    tables = {table.get_name(): table for table in symtable.symtable(source, module.__name__, "exec").get_children()}
    statements = ast.parse(source).body

    def alone(name: str) -> Callable[..., Any]:
        used, new = {name}, {name}
        while new:
            new = {name for user in new for name in _globals(tables[user])} & tables.keys() - used
            used |= new
        body = [statement for statement in statements if getattr(statement, "name", None) in {None, *used}]
        namespace: dict[str, Any] = {"__name__": BY_VALUE}
        exec(compile(ast.Module(body, type_ignores=[]), module.__name__, "exec", optimize=2), namespace)
        del namespace["__builtins__"]
        function: Callable[..., Any] = namespace[name]
        return function

    own = ast.parse(inspect.getsource(module)).body
    return {statement.name: alone(statement.name) for statement in own if isinstance(statement, ast.FunctionDef)}


def _globals(table: symtable.SymbolTable) -> Iterator[str]:
    """Return the names of a module that the body of a function, or of a class, uses."""
    yield from (symbol.get_name() for symbol in table.get_symbols() if symbol.is_global())
    for inner in table.get_children():
        yield from _globals(inner)
