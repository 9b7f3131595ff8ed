"""Check `user_endpoint_config` against what an endpoint publishes of its template. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2
import jinja2.meta
import jsonschema

from cafetal.errors import ConfigError

_SERVICE = "_GC"
"""Variable of a template that the agent fills in, beside the user's."""


def check_user_config(label: str, config: Mapping[str, object], endpoint: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for values that the template of an endpoint does not take.

    The agent itself says so only when the first task comes, and of a variable that its template lacks it says nothing.

    Args:
        label: name of the site.
        config: the user's values.
        endpoint: what the service tells of the endpoint. The agent sends the template and its JSON schema in
            ``metadata`` when it starts; where it does not, or the service keeps them to itself, nothing is checked.
    """
    metadata = endpoint.get("metadata")
    published = [endpoint, metadata if isinstance(metadata, Mapping) else {}]
    schema, template = (
        next(filter(None, (part.get(name) for part in published)), None)
        for name in ("user_config_schema", "user_config_template")
    )
    _check_schema(label, config, schema)
    _check_variables(label, config, template)


def _check_schema(label: str, config: Mapping[str, object], schema: object) -> None:
    if not isinstance(schema, Mapping) or not schema:
        return
    try:
        kind = jsonschema.validators.validator_for(schema)
        problems = sorted(kind(schema).iter_errors(dict(config)), key=lambda problem: problem.json_path)
    except Exception:  # a schema that cannot be read is for the endpoint's own people to mend
        return
    if problems:
        key = ".".join(map(str, problems[0].absolute_path))
        where = f"`{key}` in " if key else ""
        raise ConfigError(
            f"{where}`user_endpoint_config` of {label} does not fit what its endpoint takes: {problems[0].message}."
        )


def _check_variables(label: str, config: Mapping[str, object], template: object) -> None:
    if not isinstance(template, str) or not config:
        return
    try:
        variables = jinja2.meta.find_undeclared_variables(jinja2.Environment().parse(template)) - {_SERVICE}
    except jinja2.TemplateError:  # it has extensions that only the endpoint knows
        return
    unknown = sorted(config.keys() - variables)
    if "worker_init" in unknown:
        raise ConfigError(
            f"The template of the endpoint of {label} does not use `worker_init`, by which `env: bundle` and `auto` "
            f"activate an environment. Use `env: existing`, and ask the endpoint's administrator which Python it runs."
        )
    if unknown:
        takes = ", ".join(sorted(variables)) or "no values"
        raise ConfigError(
            f"The template of the endpoint of {label} does not use {', '.join(unknown)} of `user_endpoint_config`. It "
            f"takes {takes}."
        )
