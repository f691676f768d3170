"""Class names become sentences that a text tower understands."""

import unicodedata
from collections.abc import Mapping, Sequence

from kusabi.data.enumeration import enumerated
from kusabi.errors import DataError

LATIN_TEMPLATES = ("{}", "a photo of a {}")
OTHER_TEMPLATES = ("{}",)


def class_prompts(
    classes: Sequence[str], templates: Sequence[str] | None, names: Mapping[str, str]
) -> tuple[tuple[str, ...], ...]:
    """The prompts of each class: every template with the class's words in place of ``{}``.

    The words are those that ``names`` gives, as they are; else the class name with ``_`` and ``-`` as spaces. Without
    templates, words in Latin (or Greek) letters get ``LATIN_TEMPLATES``; any others, such as Japanese, stand alone.

    Args:
        classes: Class names, in order.
        templates: Sentences that hold ``{}`` once, in any language; None for the default.
        names: Class name -> words.

    Raises:
        DataError: Naming every template without exactly one ``{}``, every unknown class, every class without words.
    """
    if templates is not None:
        _check_templates(templates)
    composed = {unicodedata.normalize("NFC", name): words for name, words in names.items()}
    unknown = [f"'{name}'" for name in composed if name not in classes]
    if unknown:
        known = enumerated([f"'{name}'" for name in classes])
        raise DataError(f"names for classes that do not exist: {enumerated(unknown)}; the classes are {known}")
    words = [composed.get(name, " ".join(name.replace("_", " ").replace("-", " ").split())) for name in classes]
    silent = [f"'{name}'" for name, said in zip(classes, words, strict=True) if not said.strip()]
    if silent:
        raise DataError(f"no words for the classes {enumerated(silent)}; give them names")
    return tuple(
        tuple(template.replace("{}", said) for template in (templates if templates is not None else _default(said)))
        for said in words
    )


def _check_templates(templates: Sequence[str]) -> None:
    if not templates:
        raise DataError("an empty list of templates; give at least one, such as 'a photo of a {}'")
    bad = [f"'{template}'" for template in templates if template.count("{}") != 1]
    if bad:
        raise DataError(f"templates without exactly one {{}} for the class: {enumerated(bad)}; write it once in each")


def _default(words: str) -> tuple[str, ...]:
    letters = [letter for letter in unicodedata.normalize("NFKC", words) if letter.isalpha()]
    latin = all(unicodedata.name(letter, "").startswith(("LATIN", "GREEK")) for letter in letters)
    return LATIN_TEMPLATES if latin else OTHER_TEMPLATES
