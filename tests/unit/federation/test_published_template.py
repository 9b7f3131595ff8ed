import pytest

from cafetal.errors import ConfigError
from cafetal.federation.globus_compute.published_template import check_user_config

TEMPLATE = (
    "engine:\n  partition: {{ partition }}\n  account: {{ account | default('none') }}\n  {{ _GC.user_runtime }}\n"
)
SCHEMA = {
    "type": "object",
    "properties": {"partition": {"enum": ["short", "long"]}, "account": {"type": "string"}},
    "required": ["partition"],
}


@pytest.mark.parametrize("where", ["at the top", "in metadata"])
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"partition": "short"}, None),
        ({"partition": "short", "account": "cms"}, None),
        ({}, r"`user_endpoint_config` of desy does not fit .*'partition' is a required property"),
        ({"partition": "huge"}, r"`partition` in `user_endpoint_config` of desy .*'huge' is not one of"),
        ({"partition": "short", "walltime": 3}, r"does not use walltime of .* It takes account, partition\."),
        ({"partition": "short", "worker_init": "x"}, r"does not use `worker_init`, by which `env: bundle`"),
    ],
)
def test_values_against_what_is_published(config, message, where):
    published = {"user_config_template": TEMPLATE, "user_config_schema": SCHEMA}
    nothing = dict.fromkeys(published)
    endpoint = {**published, "metadata": nothing} if where == "at the top" else {**nothing, "metadata": published}
    if message is None:
        check_user_config("desy", config, endpoint)
    else:
        with pytest.raises(ConfigError, match=message):
            check_user_config("desy", config, endpoint)


@pytest.mark.parametrize(
    "endpoint",
    [
        {},
        {"metadata": None},
        {"metadata": {"user_config_template": None, "user_config_schema": None}},
        {"user_config_template": "{% include 'other' %", "user_config_schema": {"type": "no such type"}},
        {"user_config_template": 3, "user_config_schema": ["no schema"]},
    ],
)
def test_what_is_not_published_or_cannot_be_read_is_not_checked(endpoint):
    check_user_config("desy", {"partition": 3}, endpoint)
