"""What the sections of a configuration have in common. Knows none of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationInfo, field_validator

DIRECTORY = "directory"  # in the context of the validation: where the configuration file is


class Section(BaseModel):
    """An object of the configuration: without other keys, never changed, and no complaint shows a value of it."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_truth_value(cls, value: object, info: ValidationInfo) -> object:
        # Numbers may come as text, from the environment, so the types are lax; but `true` is not the number 1.
        if isinstance(value, bool):
            annotation = cls.model_fields[info.field_name or ""].annotation
            if bool not in (annotation, *get_args(annotation)):
                raise ValueError("should not be true or false")
        return value


def _is_a_path(value: object) -> object:
    # Also what stands behind a variable that ends in _FILE, which was meant to name the file itself.
    if isinstance(value, str) and "-----BEGIN" in value:
        raise ValueError("should be the path of a file, not what stands in it")
    if isinstance(value, str) and (not value or "\0" in value):
        raise ValueError("should be the path of a file")
    return value


def _is_a_directory(value: object) -> object:
    if isinstance(value, str) and "\0" in value:
        raise ValueError("should be the path of a directory")
    return value


def _beside_the_configuration(value: Path, info: ValidationInfo) -> Path:
    context: dict[str, Any] = info.context or {}
    return Path(os.path.abspath(context.get(DIRECTORY, Path()) / value))


# A relative one is relative to the configuration file.
Directory = Annotated[Path, BeforeValidator(_is_a_directory)]
FileName = Annotated[Path, BeforeValidator(_is_a_path), AfterValidator(_beside_the_configuration)]
