"""Find the candidate's name, email and phone; none may be a referee's or an employer's."""

import re
import unicodedata
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate, pairwise, zip_longest

import phonenumbers

from app import contact_words as words

CONTACT_LIMIT = 20_000  # characters searched: the first pages
FOOTER_LIMIT = 5_000  # characters at the end searched as well: a DOCX's page footers
NAME_LINES = 15  # lines at the top that may hold the name
TOP_LINES = 25  # lines at the top of a text that count as its contact block when no heading ends it
WORD_LETTERS = 3  # of a name's word that an address must repeat to be the same person's
NEAR_LINES = 3  # lines around an address that belong to the same person or company

_LATIN_TO_CYRILLIC = "\u00c0-\u04ff"
_EMAIL = re.compile(
    rf"(?<![\w.%+{_LATIN_TO_CYRILLIC}-])[a-z0-9_][\w.%+-]{{0,63}}@(?:[a-z0-9-]{{1,63}}\.){{1,8}}"
    # A PDF may set the next word without a space: "ada@example.comPhone".
    r"(?-i:(?:[a-z]{2,24}|[A-Z]{2,24})(?![a-z0-9_-]))",
    re.IGNORECASE | re.ASCII,
)
# An address that a narrow column wraps within its domain.
_WRAPPED_DOMAIN = re.compile(
    r"(?:@[\w-]*\w(?=\n[\w-]*(?:\.[\w-]+)+\s*(?:\n|$))|@[\w.-]+(?=\n\.[a-z])|"
    r"@[\w.-]+\.(?:[a-z](?=\n[a-z]+\s*(?:\n|$))|(?:co(?=\nm)|or(?=\ng)|ne(?=\nt)|ed(?=\nu))"
    r"(?=\n.\s*(?:\n|$))))\n",
    re.ASCII,
)
# The first half of an address that is wrapped before the @; a label or a name begins with a capital.
_LONE_TOKEN = re.compile(r"[a-z0-9_][\w.+-]*", re.ASCII)
_HALF = re.compile(r"[a-z0-9]+ ")
_FAX = re.compile(r"\bfax\b[^\d+]*$", re.IGNORECASE)

_LABELLED_NAME = re.compile(rf"\s*{words.NAME_LABEL}\s*:\s*(\S.*)", re.IGNORECASE)
_NAME_LABEL = re.compile(rf"\s*{words.NAME_LABEL}\s*:?\s*", re.IGNORECASE)
_NAME_WORD = r"[^\W\d_](?:[^\W\d_]|['\N{RIGHT SINGLE QUOTATION MARK}.-])*"
_NAME = re.compile(rf"{_NAME_WORD}(?:\s+{_NAME_WORD}){{1,4}}")
_LETTERS_APART = re.compile(r"[^\W\d_](?: [^\W\d_]){2,}(?:  +[^\W\d_](?: [^\W\d_])+)*")
_AFTER_NAME = re.compile(
    r"\s*[|,;:\N{BULLET}\N{MIDDLE DOT}\N{EN DASH}\N{EM DASH}\t(]\s*|\s{3,}|\s+-\s+|\s+(?=\S+@|\+\d)"
)
_ONE_WORD = re.compile(r"[^\W\d_]{2,}")
_STATE = re.compile(r"[A-Z]{2}(?:\s+\d{5})?")  # "New York, NY"
_DEGREES = {"MD", "MA", "MS", "BA", "BS", "RN", "DO", "JD", "PE", "QC", "KC"}
_PARTICLES = {
    *("al", "bin", "da", "de", "del", "den", "der", "di", "dos", "du", "el", "la", "le", "ten", "ter", "van"),
    *("von", "y", "zu"),
}
_TITLE = re.compile(
    rf"\s*{words.TITLE}(?:\s+(?:of|de|von|di))?(?:\s*[:|\u2013\u2014-]\s*|\s+|$)", re.IGNORECASE
)
_NOT_A_NAME = re.compile(rf"\b{words.NOT_A_NAME}\b", re.IGNORECASE)
_HEADINGS = {
    section: re.compile(rf"\W*{phrases}\W*", re.IGNORECASE) for section, phrases in words.SECTIONS.items()
}
_OTHER_PERSON = re.compile(rf"\b{words.OTHER_PERSON}\b", re.IGNORECASE)
_CONTACT_LABEL = re.compile(rf"\W*{words.CONTACT_LABEL}\b\W*", re.IGNORECASE)
_ROLE = re.compile(rf"{words.ROLES}@", re.IGNORECASE)
_FREE_MAIL = re.compile(rf"@{words.FREE_MAIL}\.[a-z.]{{2,6}}$", re.IGNORECASE)
_FOLDED = str.maketrans(
    {"ß": "ss", "ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "ð": "d", "þ": "th", "\u0131": "i"}
)


@dataclass
class _Line:
    text: str
    section: str  # top, contact, references or other
    number: int  # in its part of the text
    emails: list[str] = field(default_factory=list)


@dataclass
class _Address:
    address: str
    is_contact: bool  # it is among the contact details, and not a department's

    @property
    def local(self) -> str:
        return self.address.partition("@")[0]


def contact(text: str, region: str) -> dict[str, str | None]:
    """Return {"name", "email", "phone"}, each None unless it is the candidate's.

    `region` is the country (ISO 3166, two letters) whose numbers may be written without their prefix. A form
    feed in the text separates parts that do not follow each other on the page.
    """
    head = text[:CONTACT_LIMIT]
    if len(text) > CONTACT_LIMIT:
        head += "\f" + text[max(CONTACT_LIMIT, len(text) - FOOTER_LIMIT) :]
    lines = _lines(_WRAPPED_DOMAIN.sub(lambda match: match[0].rstrip(), head))
    name, email = _name_and_email(lines)
    return {"name": name, "email": email, "phone": _phone(lines, email, region)}


def _lines(text: str) -> list[_Line]:
    """Split a text into lines with their section and their addresses."""
    lines: list[_Line] = []
    for block in text.split("\f"):
        section = "top"
        for number, line in enumerate(filter(None, map(str.strip, block.splitlines()))):
            if _LETTERS_APART.fullmatch(line):
                line = " ".join(word.replace(" ", "") for word in re.split("  +", line))
            heading = next((key for key, phrases in _HEADINGS.items() if phrases.fullmatch(line)), None)
            if heading:
                section = heading
            elif section == "top" and number == TOP_LINES:
                section = "other"
            other_person = section == "references" or _OTHER_PERSON.search(line)
            lines.append(_Line(line, "references" if other_person else section, number, _EMAIL.findall(line)))
    return lines


def _folded(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.lower().translate(_FOLDED))
    return "".join(character for character in decomposed if not unicodedata.combining(character))


def _likeness(name: str, address: str) -> int:
    """Return how many letters of a name an address repeats; ä may be written as a or as ae."""
    address = re.sub(r"[\W\d_]", "", _folded(address), flags=re.ASCII)
    total = 0
    for word in re.split(r"[\s-]+", name.lower()):
        spellings = {_folded(word), _folded(re.sub("[äöü]", lambda match: _folded(match[0]) + "e", word))}
        spellings = {re.sub(r"\W", "", spelling) for spelling in spellings}
        total += max(
            (len(part) for part in spellings if len(part) >= WORD_LETTERS and part in address), default=0
        )
    return total


def _name_and_email(lines: list[_Line]) -> tuple[str | None, str | None]:
    own = [line for line in lines if line.section != "references"]
    addresses = _addresses(own)
    name = _labelled_name(own)
    if name is None:
        name = _first_name(own)
        # The first line may be something else: a name that the contact address repeats is more reliable.
        contact_address = next((found.local for found in addresses if found.is_contact), "")
        top = [line.text for line in own if line.number < NAME_LINES]
        # A name in large letters may take two lines.
        halves = [pair for pair in pairwise(top) if _are_halves(*pair, contact_address)]
        candidates = [*map(" ".join, halves), *top, *(line.text for line in own)]
        names = [found for text in candidates if (found := _candidate(text))]
        name = next((found for found in names if _likeness(found, contact_address)), name)
    return name, _own_address(name, addresses)


def _labelled_name(lines: list[_Line]) -> str | None:
    for line, following in zip_longest(lines, lines[1:]):
        if labelled := _LABELLED_NAME.fullmatch(line.text):
            return labelled[1].strip()[:100]
        if following and _NAME_LABEL.fullmatch(line.text) and (name := _candidate(following.text)):
            return name
    return None


def _first_name(lines: list[_Line]) -> str | None:
    """Return the name in the first line that is neither a title nor an address."""
    before = ""
    for line in lines:
        if line.section != "top" or line.number >= NAME_LINES:
            continue
        before = before if line.number else ""
        if name := _candidate(line.text):
            # "JOSÉ" above "ÁLVAREZ NÚÑEZ" may be the rest of the name, or a city.
            return None if _ONE_WORD.fullmatch(before) and not _TITLE.fullmatch(before) else name
        before = _TITLE.sub("", line.text, count=1)
        # A name in a script without capitals is not recognised; the line after it is something else.
        if any(letter.isalpha() and not letter.isupper() and not letter.islower() for letter in before):
            return None
    return None


def _candidate(line: str) -> str | None:
    """Return the name that a line begins with: "Ada Lovelace | London", "Ada Lovelace, PhD"."""
    line = _TITLE.sub("", line, count=1) if _TITLE.match(line) else line
    name, *rest = map(str.strip, _AFTER_NAME.split(line, maxsplit=1))
    words = name.split()
    capitals = all(word[0].isupper() or word.lower() in _PARTICLES for word in words)
    if not _NAME.fullmatch(name) or not capitals or words[-1].lower() in _PARTICLES:
        return None
    if _NOT_A_NAME.search(name) or (rest and _STATE.fullmatch(rest[0]) and rest[0] not in _DEGREES):
        return None
    return " ".join(words).title() if name.isupper() else " ".join(words)


def _addresses(lines: list[_Line]) -> list[_Address]:
    found = []
    for index, line in enumerate(lines):
        before = lines[index - 1].text if index else ""
        labelled = _CONTACT_LABEL.match(line.text) or _CONTACT_LABEL.fullmatch(before)
        for address in line.emails:
            # Fonts of TeX have no underscore: what precedes it may be the first half.
            prefix = line.text.partition(address)[0]
            if _HALF.fullmatch(prefix) and not _CONTACT_LABEL.fullmatch(prefix):
                continue
            is_contact = bool(line.section in ("top", "contact") or labelled or _FREE_MAIL.search(address))
            found.append(_Address(address, is_contact and not _ROLE.match(address)))
            # A narrow column may have wrapped it, or hyphenated it: then the first half is not known.
            if line.text.startswith(address) and _LONE_TOKEN.fullmatch(before):
                if before.endswith("-"):
                    found.pop()
                else:
                    found.append(_Address(before + address, False))
    return found


def _are_halves(first: str, second: str, address: str) -> bool:
    """Return whether an address repeats both lines of a name, or the second after the first's initial."""
    single = _ONE_WORD.fullmatch(first) and _ONE_WORD.fullmatch(second)
    initial = bool(single) and address.lower().startswith(_folded(first)[0])
    return bool(_likeness(second, address) and (initial or _likeness(first, address)))


def _own_address(name: str | None, addresses: list[_Address]) -> str | None:
    """Return the address that repeats the name most, or else the first among contact details."""
    best, best_likeness = None, 0
    for found in addresses:
        # hello@lovelace.example is the candidate's, hello@agency.example is not.
        part = found.address.partition("@")[2] if _ROLE.match(found.address) else found.local
        likeness = _likeness(name or "", part)
        if likeness > best_likeness:
            best, best_likeness = found.address, likeness
    return best or next((found.address for found in addresses if found.is_contact), None)


def _phone(lines: list[_Line], email: str | None, region: str) -> str | None:
    """Return the number nearest to the candidate's address, or else the first among contact details."""
    own = [index for index, line in enumerate(lines) if email in line.emails]
    others = [index for index, line in enumerate(lines) if set(line.emails) - {email}]
    starts = list(accumulate((len(line.text) + 1 for line in lines), initial=0))
    text = "\n".join(line.text for line in lines)
    chosen, chosen_distance = None, NEAR_LINES + 2
    for match in phonenumbers.PhoneNumberMatcher(text, region, max_tries=500):
        index = bisect_right(starts, match.start) - 1
        line = lines[index]
        if line.section == "references" or _FAX.search(text[starts[index] : match.start]):
            continue
        distance = min((abs(index - near) for near in own), default=NEAR_LINES + 1)
        to_others = min((abs(index - near) for near in others), default=NEAR_LINES + 1)
        if distance > NEAR_LINES or distance > to_others:
            labelled = line.section in ("top", "contact") or _CONTACT_LABEL.match(line.text)
            if to_others <= NEAR_LINES or not labelled:
                continue
            distance = NEAR_LINES + 1
        if distance < chosen_distance:
            chosen, chosen_distance = match.number, distance
    if chosen is None:
        return None
    return str(phonenumbers.format_number(chosen, phonenumbers.PhoneNumberFormat.INTERNATIONAL))
