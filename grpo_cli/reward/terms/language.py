"""Whether a response reasons in one language, judged by the script of its letters."""

import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from grpo_cli.choices import Language
from grpo_cli.reward.terms.term import Response, Term

_SCRIPTS = {
    Language.en: ("LATIN",),
    Language.zh: ("CJK",),
    Language.ja: ("HIRAGANA", "KATAKANA", "CJK"),
    Language.ko: ("HANGUL",),
    Language.ru: ("CYRILLIC",),
    Language.ar: ("ARABIC",),
    Language.hi: ("DEVANAGARI",),
}
# Scripts that one text may mix: Japanese is written in three.
_FAMILIES = {
    "latin": ("LATIN",),
    "east asian": ("CJK", "HIRAGANA", "KATAKANA"),
    "hangul": ("HANGUL",),
    "cyrillic": ("CYRILLIC",),
    "arabic": ("ARABIC",),
    "devanagari": ("DEVANAGARI",),
}


@dataclass(frozen=True, kw_only=True)
class LanguageTerm(Term):
    """The share of the reasoning's letters that are in the language's script (DeepSeek-R1, stage 2)."""

    name: ClassVar[str] = "language"

    language: Language = Language.en
    """The language to reason in."""

    def value(self, response: Response) -> float:
        return language_consistency(response.text, self.language)


def language_consistency(text: str, language: Language) -> float:
    """The share of the letters before `</think>` that are in the language's script; 0 if there are no letters.

    Without `</think>`, all letters count. Languages with the same script, such as English and French, are not
    distinguished (DeepSeek-R1, arXiv:2501.12948, 2.3.2).
    """
    thinking = text.partition("</think>")[0].replace("<think>", "")
    letters = [char for char in thinking if char.isalpha()]
    if not letters:
        return 0.0
    return sum(_script(letter).startswith(_SCRIPTS[language]) for letter in letters) / len(letters)


MIXED_SHARE = 0.05  # minimal share of the letters for a script to count as used


def is_mixed(text: str) -> bool:
    """Whether at least two scripts have 5% of the letters each. Greek is not counted: it is used in mathematics."""
    letters = [char for char in text if char.isalpha()]
    counts = Counter(
        family for letter in letters for family in _FAMILIES if _script(letter).startswith(_FAMILIES[family])
    )
    return sum(count >= MIXED_SHARE * len(letters) for count in counts.values()) > 1


@lru_cache(maxsize=8192)
def _script(letter: str) -> str:
    return unicodedata.name(letter, "")
