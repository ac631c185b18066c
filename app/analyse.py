"""Extract name, email, phone and skills from the text of a CV."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import phonenumbers

CONTACT_LIMIT = 20_000  # characters searched for name, email and phone: about the first pages
NAME_LINES = 15  # lines at the top that may hold the name

_EMAIL = re.compile(r"[\w.%+-]{1,64}@(?:[a-z0-9-]{1,63}\.){1,8}[a-z]{2,24}\b", re.IGNORECASE | re.ASCII)
_LABELLED_NAME = re.compile(r"\s*(?:full\s+)?name\s*[:\-]\s*(\S.*)", re.IGNORECASE)
_NAME_WORD = r"[^\W\d_](?:[^\W\d_]|['\N{RIGHT SINGLE QUOTATION MARK}.-])*"
_NAME = re.compile(rf"{_NAME_WORD}(?:\s+{_NAME_WORD}){{1,4}}")
_PARTICLES = {"al", "bin", "da", "de", "del", "der", "di", "dos", "du", "la", "le", "van", "von", "y", "zu"}
_HEADINGS = re.compile(
    r"\b(curriculum|vitae|resume|résumé|lebenslauf|cv|profile|summary|contact|experience|education|skills|"
    r"engineer|developer|manager|designer|scientist|analyst|consultant|address|page)\b",
    re.IGNORECASE,
)


def analyse(text: str, phone_region: str) -> dict[str, Any]:
    """Return {"name", "email", "phone", "skills"}; a missing value is None, missing skills an empty list.

    `phone_region` is the country (ISO 3166-1 alpha-2) whose phone numbers may lack the country code.
    """
    head = text[:CONTACT_LIMIT]
    email = _EMAIL.search(head)
    return {
        "name": _name(head),
        "email": email.group() if email else None,
        "phone": _phone(head, phone_region),
        "skills": _skills(text),
    }


def _name(text: str) -> str | None:
    lines = [line.strip() for line in text.splitlines() if line.strip()][:NAME_LINES]
    for line in lines:
        if labelled := _LABELLED_NAME.fullmatch(line):
            return labelled.group(1).strip()[:100]
    for line in lines:
        # As in "Ada Lovelace | London" and "Ada Lovelace, PhD".
        candidate = re.split(r"\s*[|,;\N{BULLET}\N{EN DASH}\N{EM DASH}\t]\s*|\s{3,}", line)[0]
        words = candidate.split()
        capitalised = all(word[0].isupper() or word.lower() in _PARTICLES for word in words)
        if _NAME.fullmatch(candidate) and capitalised and not _HEADINGS.search(candidate):
            return candidate.title() if candidate.isupper() else candidate
    return None


def _phone(text: str, region: str) -> str | None:
    for match in phonenumbers.PhoneNumberMatcher(text, region, max_tries=500):
        return str(phonenumbers.format_number(match.number, phonenumbers.PhoneNumberFormat.INTERNATIONAL))
    return None


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
