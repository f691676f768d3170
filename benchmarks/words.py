"""The words of the generated blocks: one TOML file a language, the same keys in each."""

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path


@cache
def texts(language: str) -> Mapping[str, str]:
    """The texts of ``en`` or ``ja``; numbers and ways of answering are worded as on the report's page."""
    return tomllib.loads(Path(__file__).with_name(f"words.{language}.toml").read_text(encoding="utf-8"))
