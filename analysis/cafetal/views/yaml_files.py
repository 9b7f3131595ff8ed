"""Files in which a user says what is to be made of an output."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from cafetal.errors import ConfigError
from cafetal.strict import load_yaml
from cafetal.validation import sentence

Request = TypeVar("Request", bound=BaseModel)


def read_request(path: Path, model: type[Request], subject: str) -> Request:
    """Read a YAML file that describes ``subject``, such as "plots".

    Raises:
        ConfigError: if it cannot be used.
    """
    try:
        return model.model_validate(load_yaml(path.read_text()))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not a text file.") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from None
    except ValidationError as error:
        lines = "\n".join(f"  {sentence(finding, model)}" for finding in error.errors())
        raise ConfigError(f"{path} is not a valid description of {subject}:\n{lines}") from None
