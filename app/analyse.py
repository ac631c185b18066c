"""Extract name, email, phone and skills from the text of a CV."""

import re
from functools import cache
from pathlib import Path
from typing import Any

from app.contact import contact


def analyse(text: str, phone_region: str) -> dict[str, Any]:
    """Return {"name", "email", "phone", "skills"}; a missing value is None, missing skills an empty list.

    `phone_region` is the country (ISO 3166-1 alpha-2) whose phone numbers may lack the country code.
    """
    return {**contact(text, phone_region), "skills": _skills(text)}


def _skills(text: str) -> list[str]:
    pattern, names = _vocabulary()
    found = {match.group() for match in pattern.finditer(text)}
    return sorted({names.get(word) or names[word.lower()] for word in found}, key=str.lower)


@cache
def _vocabulary() -> tuple[re.Pattern[str], dict[str, str]]:
    """Return one expression that matches all skills, and the skill for each spelling."""
    names: dict[str, str] = {}
    exact: list[str] = []
    loose: list[str] = []
    for line in Path(__file__).with_name("skills.txt").read_text("utf-8").splitlines():
        spellings = [part.strip() for part in line.partition("#!")[0].split("|") if part.strip()]
        for spelling in spellings:
            # "Go", "R" and "IT" are other words in lower case.
            short = len(spelling) <= 3
            (exact if short else loose).append(re.escape(spelling))
            names[spelling if short else spelling.lower()] = spellings[0]
    longest_first = {"key": len, "reverse": True}
    expression = (
        r"(?<![\w+#.-])"
        rf"(?:{'|'.join(sorted(exact, **longest_first))}|(?i:{'|'.join(sorted(loose, **longest_first))}))"  # type: ignore[call-overload]
        r"(?![\w+#]|[.-]\w)"
    )
    return re.compile(expression), names
