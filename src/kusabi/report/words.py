"""The words of the page: one TOML file a language, the same keys in each."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kusabi.errors import SpecError

LANGUAGES = ("en", "ja")


@dataclass(frozen=True)
class Words:
    """All words of one language; calling it gives one of them, filled in.

    ``words("verdict.spread", seeds=…)`` is the text at that key with its placeholders replaced.
    """

    language: str
    texts: Mapping[str, str]

    def __call__(self, key: str, /, **filled: object) -> str:
        """The text at ``key``; a key that does not exist is a programmer's error (KeyError)."""
        return self.texts[key].format(**filled)

    def name(self, section: str, value: object) -> str:
        """The word for a value of an evaluation, or the value itself where there is none; ``–`` for None."""
        return "–" if value is None else self.texts.get(f"{section}.{value}", str(value))

    def amount(self, noun: str, n: int) -> str:
        """A number with its noun, such as ``1 picture`` or ``1,200 pictures``; nouns: ``pictures``, ``seeds``."""
        return self(f"number.{noun}_{'one' if n == 1 else 'many'}", n=f"{n:,}")

    def glossary(self) -> list[tuple[str, str]]:
        """Terms with their explanations, in the order of the file."""
        terms = [key.removesuffix(".term") for key in self.texts if key.endswith(".term")]
        return [(self(f"{key}.term"), self(f"{key}.text")) for key in terms]


@cache
def read_words(language: str) -> Words:
    """The words of ``en`` or ``ja``.

    Raises:
        SpecError: When the language has no words.
    """
    if language not in LANGUAGES:
        raise SpecError(f"language '{language}' is not known; choose one of: {', '.join(LANGUAGES)}")
    content = Path(__file__).with_name(f"words.{language}.toml").read_text(encoding="utf-8")
    return Words(language, dict(_flat(tomllib.loads(content))))


def _flat(table: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value
