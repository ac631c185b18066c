"""The part of Cloudflare's rules language that the edge evaluates.

Fields of the request; and, or, xor, not; comparisons: eq ne lt le gt ge contains wildcard in; their symbols;
functions: starts_with, ends_with, lower, upper, len. Anything else is rejected when a rule is written.
Grammar: Cloudflare's reference of the Ruleset Engine's language.
"""

from __future__ import annotations

import fnmatch
import functools
import ipaddress
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

STRINGS = {
    "http.cookie", "http.host", "http.referer", "http.request.full_uri", "http.request.method",
    "http.request.uri", "http.request.uri.path", "http.request.uri.path.extension",
    "http.request.uri.query", "http.user_agent",
}  # fmt: skip
# Fields of the response: only for rules of the compression phase.
RESPONSE_STRINGS = {"http.response.content_type.media_type"}
NUMBERS = {"http.response.code"}
ADDRESSES = {"ip.src"}
FLAGS = {"ssl"}
SYMBOLS = {
    "==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge",
    "&&": "and", "||": "or", "^^": "xor", "!": "not",
}  # fmt: skip
# Binary operators from the lowest to the highest precedence, with the result for their operands' results.
COMBINATIONS: tuple[tuple[str, Callable[[Iterable[bool]], bool]], ...] = (
    ("or", any),
    ("xor", lambda results: sum(results) % 2 == 1),
    ("and", all),
)
ORDER = {"lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge}
TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<symbol>==|!=|<=|>=|&&|\|\||\^\^|[<>!(){},])"""
    r"""|(?P<literal>\d[\w:./]*|[0-9a-fA-F]*:[\w:./]*)|(?P<word>[A-Za-z_][\w.]*))"""
)

Facts = Mapping[str, Any]
Test = Callable[[Facts], bool]
Value = Callable[[Facts], Any]


class ExpressionError(ValueError):
    """An invalid or unsupported expression; the message has Cloudflare's form."""

    def __init__(self, text: str, column: int, problem: str) -> None:
        marked = f"Filter parsing error (1:{column + 1}):\n{text}\n{' ' * column}^ {problem}"
        super().__init__(marked)


@dataclass(frozen=True)
class _Operand:
    kind: str  # string, number, address or flag
    value: Value


@functools.lru_cache(maxsize=1024)
def parse(text: str, of_response: bool = False) -> Test:
    """Compile an expression into a function of a request's field values by name.

    `of_response` permits the fields of the response. Raises ExpressionError.
    """
    return _Parser(text, of_response).parse()


class _Parser:
    def __init__(self, text: str, of_response: bool) -> None:
        self._text = text
        self._strings = STRINGS | RESPONSE_STRINGS if of_response else STRINGS
        self._numbers = NUMBERS if of_response else set()
        self._tokens: list[tuple[str, str, int]] = []
        position = 0
        end = len(text.rstrip())
        while position < end:
            found = TOKEN.match(text, position)
            if not found or not found.lastgroup:
                raise ExpressionError(text, position, "unrecognised input")
            kind = found.lastgroup
            self._tokens.append((kind, found[kind], found.start(kind)))
            position = found.end()
        self._tokens.append(("end", "", end))

    def parse(self) -> Test:
        test = self._combination()
        if self._kind != "end":
            self._fail("unrecognised input")
        return test

    @property
    def _kind(self) -> str:
        return self._tokens[0][0]

    @property
    def _word(self) -> str:
        kind, text, _ = self._tokens[0]
        return SYMBOLS.get(text, text) if kind in ("symbol", "word") else ""

    def _advance(self) -> str:
        return self._tokens.pop(0)[1]

    def _accept(self, *words: str) -> bool:
        if self._word not in words:
            return False
        self._advance()
        return True

    def _expect(self, word: str) -> None:
        if not self._accept(word):
            self._fail(f'expected "{word}"')

    def _fail(self, problem: str) -> Any:
        raise ExpressionError(self._text, self._tokens[0][2], problem)

    def _combination(self, level: int = 0) -> Test:
        """Parse operands of higher precedence, joined by the binary operator of this level."""
        if level == len(COMBINATIONS):
            return self._single()
        word, combine = COMBINATIONS[level]
        tests = [self._combination(level + 1)]
        while self._accept(word):
            tests.append(self._combination(level + 1))
        return tests[0] if len(tests) == 1 else lambda facts: combine(test(facts) for test in tests)

    def _single(self) -> Test:
        if self._accept("not"):
            negated = self._single()
            return lambda facts: not negated(facts)
        if self._accept("("):
            inner = self._combination()
            self._expect(")")
            return inner
        if self._accept("true"):
            return lambda facts: True
        if self._accept("false"):
            return lambda facts: False
        if self._word in ("starts_with", "ends_with"):
            return self._affix(self._advance())
        left = self._operand()
        if left.kind == "flag":
            return lambda facts: bool(left.value(facts))
        return self._comparison(left)

    def _affix(self, name: str) -> Test:
        self._expect("(")
        subject = self._operand()
        if subject.kind != "string":
            self._fail("expected value of type String")
        self._expect(",")
        affix = self._string()
        self._expect(")")
        method = str.startswith if name == "starts_with" else str.endswith
        return lambda facts: method(subject.value(facts), affix)

    def _operand(self) -> _Operand:
        if self._kind != "word":
            self._fail("unrecognised input")
        name = self._word
        if name in ("lower", "upper", "len"):
            self._advance()
            self._expect("(")
            inner = self._operand()
            if inner.kind != "string":
                self._fail("expected value of type String")
            self._expect(")")
            apply: Callable[[str], Any] = {"lower": str.lower, "upper": str.upper, "len": len}[name]
            kind = "number" if name == "len" else "string"
            return _Operand(kind, lambda facts: apply(inner.value(facts)))
        groups = (
            ("string", self._strings), ("number", self._numbers), ("address", ADDRESSES), ("flag", FLAGS),
        )  # fmt: skip
        kind = next((kind for kind, names in groups if name in names), "")
        if not kind:
            self._fail("unknown identifier")
        self._advance()
        return _Operand(kind, lambda facts: facts[name])

    def _comparison(self, left: _Operand) -> Test:
        literal: Callable[[], Any] = {
            "string": self._string, "number": self._number, "address": self._network,
        }[left.kind]  # fmt: skip
        value = left.value
        if self._accept("in"):
            self._expect("{")
            items = []
            while not self._accept("}"):
                items.append(literal())
            return lambda facts: any(_equal(value(facts), item) for item in items)
        if self._accept("eq"):
            wanted = literal()
            return lambda facts: _equal(value(facts), wanted)
        if self._accept("ne"):
            unwanted = literal()
            return lambda facts: not _equal(value(facts), unwanted)
        if left.kind == "number" and self._word in ORDER:
            compare = ORDER[self._word]
            self._advance()
            bound = literal()
            return lambda facts: bool(compare(value(facts), bound))
        if left.kind == "string" and self._accept("contains"):
            part = self._string()
            return lambda facts: part in value(facts)
        if left.kind == "string" and self._word in ("wildcard", "strict"):
            strict = self._accept("strict")
            self._expect("wildcard")
            pattern = self._string()
            # Cloudflare gives only * a special meaning.
            glob = re.compile(
                fnmatch.translate(re.sub(r"([?\[])", r"[\1]", pattern)), 0 if strict else re.IGNORECASE
            )
            return lambda facts: glob.match(value(facts)) is not None
        return self._fail("unrecognised input")  # type: ignore[no-any-return]

    def _string(self) -> str:
        if self._kind != "string":
            self._fail("expected a string literal")
        return re.sub(r"\\(.)", r"\1", self._advance()[1:-1])

    def _number(self) -> int:
        if self._kind != "literal" or not self._tokens[0][1].isdecimal():
            self._fail("expected digits")
        return int(self._advance())

    def _network(self) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        try:
            network = ipaddress.ip_network(self._tokens[0][1])
        except ValueError:
            self._fail("couldn't parse address in network")
        self._advance()
        return network


def _equal(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return ipaddress.ip_address(value) in wanted
    return bool(value == wanted)
