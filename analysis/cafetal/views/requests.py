"""Files in which a user says what is to be made of an output."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from cafetal.errors import ConfigError

Request = TypeVar("Request", bound=BaseModel)


def read_request(path: Path, model: type[Request], what: str) -> Request:
    """Read a YAML file that says ``what``, such as "what is to be drawn".

    Raises:
        ConfigError: if it cannot be used.
    """
    try:
        return model.model_validate(yaml.safe_load(path.read_text()))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, ValidationError) as error:
        raise ConfigError(f"{path} does not say {what}: {error}") from None
