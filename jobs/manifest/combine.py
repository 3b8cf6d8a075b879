"""How axes make clips: `*` is the product, `(a, b)` pairs axes of equal length, every axis exactly once.

    expression := term ("*" term)*
    term       := AXIS | "(" expression ("," expression)* ")"

In a product the last factor changes fastest. What an index means is arithmetic on lengths; nothing is laid out.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from jobs.manifest.rows import RowValueError
from jobs.text import shown, unknown

MAX_EXPRESSION_CHARACTERS = 1000
_MAX_DEPTH = 20
_TOKEN = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*|[*(),])")


@dataclass(frozen=True)
class AxisTerm:
    name: str
    length: int

    def locate(self, index: int, positions: dict[str, int]) -> None:
        positions[self.name] = index


@dataclass(frozen=True)
class Product:
    factors: tuple["Term", ...]
    length: int

    def locate(self, index: int, positions: dict[str, int]) -> None:
        for factor in reversed(self.factors):
            index, position = divmod(index, factor.length)
            factor.locate(position, positions)


@dataclass(frozen=True)
class Pairing:
    members: tuple["Term", ...]
    length: int

    def locate(self, index: int, positions: dict[str, int]) -> None:
        for member in self.members:
            member.locate(index, positions)


Term = AxisTerm | Product | Pairing


@dataclass(frozen=True)
class Combination:
    """A parsed expression."""

    root: Term

    @property
    def length(self) -> int:
        """How many clips it makes."""
        return self.root.length

    def positions(self, index: int) -> dict[str, int]:
        """Which value of each axis clip `index` has."""
        positions: dict[str, int] = {}
        self.root.locate(index, positions)
        return positions


def parse_combination(expression: str, lengths: Mapping[str, int]) -> Combination:
    """Reads an expression over axes of the given lengths.

    Raises:
        RowValueError: it does not follow the grammar, names an axis twice, never, or one that is not there, or pairs
            axes of different lengths.
    """
    parser = _Parser(expression, lengths)
    root = parser.expression(depth=0)
    parser.expect_end()
    missing = [name for name in lengths if name not in parser.seen]
    if missing:
        raise RowValueError(f"combine must name every axis once; {', '.join(missing)} is missing")
    return Combination(root)


def product_of_all(lengths: Mapping[str, int]) -> Combination:
    """The product of all axes in their order, the last one changing fastest."""
    return Combination(_product([AxisTerm(name, length) for name, length in lengths.items()]))


class _Parser:
    """Recursive descent, bounded in depth."""

    def __init__(self, expression: str, lengths: Mapping[str, int]) -> None:
        if len(expression) > MAX_EXPRESSION_CHARACTERS:
            raise RowValueError(f"combine has more than {MAX_EXPRESSION_CHARACTERS:,} characters")
        self.seen: set[str] = set()
        self._lengths = lengths
        self._tokens = _tokens(expression)
        self._next = 0

    def expression(self, depth: int) -> Term:
        factors = [self._term(depth)]
        while self._peek() == "*":
            self._next += 1
            factors.append(self._term(depth))
        return _product(factors)

    def expect_end(self) -> None:
        if self._peek():
            raise RowValueError(f"combine: expected '*' or the end, not {shown(self._peek())}")

    def _term(self, depth: int) -> Term:
        word = self._peek()
        self._next += 1
        if word == "(":
            return self._group(depth + 1)
        if not word or word in "*,)":
            raise RowValueError(
                f"combine: expected an axis or '(', not {shown(word) if word else 'the end'}"
            )
        if word not in self._lengths:
            raise RowValueError(f"combine: {unknown('axis', word, self._lengths)}")
        if word in self.seen:
            raise RowValueError(f"combine must name every axis once; {word} is there twice")
        self.seen.add(word)
        return AxisTerm(word, self._lengths[word])

    def _group(self, depth: int) -> Term:
        if depth > _MAX_DEPTH:
            raise RowValueError(f"combine has more than {_MAX_DEPTH} parentheses inside each other")
        members = [self.expression(depth)]
        while (word := self._peek()) == ",":
            self._next += 1
            members.append(self.expression(depth))
        if word != ")":
            raise RowValueError(
                f"combine: expected '*', ',' or ')', not {shown(word) if word else 'the end'}"
            )
        self._next += 1
        if len(members) == 1:
            return members[0]
        if len({member.length for member in members}) > 1:
            lengths = ", ".join(f"{_label(member)} has {member.length:,}" for member in members)
            raise RowValueError(f"combine: a pairing needs equal lengths; {lengths}")
        return Pairing(tuple(members), members[0].length)

    def _peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""


def _product(factors: list[Term]) -> Term:
    if len(factors) == 1:
        return factors[0]
    return Product(tuple(factors), math.prod(factor.length for factor in factors))


def _label(term: Term) -> str:
    match term:
        case AxisTerm(name):
            return name
        case Product(factors):
            return " * ".join(_label(factor) for factor in factors)
        case Pairing(members):
            return f"({', '.join(_label(member) for member in members)})"


def _tokens(expression: str) -> list[str]:
    tokens: list[str] = []
    position = 0
    text = expression.rstrip()
    while position < len(text):
        found = _TOKEN.match(text, position)
        if not found:
            raise RowValueError(
                f"combine: expected axes, '*', ',' and parentheses, not {shown(text[position:])}"
            )
        tokens.append(found.group(1))
        position = found.end()
    return tokens
