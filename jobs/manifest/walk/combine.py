"""The expression `combine`, which says how the axes of a manifest make clips.

    expression := term ("*" term)*
    term       := AXIS | "(" expression ("," expression)* ")"

`*` is the product, whose last factor changes fastest. `(a, b)` pairs terms of equal length. Every
axis stands in the expression exactly once. A clip's index becomes positions on the axes by
arithmetic, so that a grid takes no memory.

The expression is a subset of Python's. Python's parser builds the tree; the check before it refuses
everything outside the subset and says what was expected.
"""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass

from jobs.errors import RowValueError
from jobs.text import shown, unknown

MAX_EXPRESSION_CHARACTERS = 1000
_MAX_DEPTH = 20
_END = ""
_WORD = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*|[*(),])")


@dataclass(frozen=True)
class Combination:
    """A parsed expression.

    Args:
        length: number of clips that the expression makes.
        lengths: number of values of each axis.
        strides: number of clips after which each axis takes its next value.
    """

    length: int
    lengths: Mapping[str, int]
    strides: Mapping[str, int]

    def positions(self, index: int) -> dict[str, int]:
        """Return the position on each axis of clip `index`."""
        return {name: index // stride % self.lengths[name] for name, stride in self.strides.items()}


def parse_combination(expression: str, lengths: Mapping[str, int]) -> Combination:
    """Parse an expression over axes of the given lengths.

    Raises:
        RowValueError: the expression does not follow the grammar, names an axis twice, never, or
            one that does not exist, or pairs axes of different lengths.
    """
    words = _words(expression)
    _check_grammar(words)
    names = [word for word in words if word.isidentifier()]
    for index, name in enumerate(names):
        if name not in lengths:
            raise RowValueError(f"combine: {unknown('axis', name, lengths)}")
        if name in names[:index]:
            raise RowValueError(f"combine must name every axis once; {name} is there twice")
    if missing := [name for name in lengths if name not in names]:
        raise RowValueError(f"combine must name every axis once; {', '.join(missing)} is missing")
    # With a prefix, a word that is a keyword of Python, such as `in`, is a name like any other.
    source = " ".join(f"_{word}" if word.isidentifier() else word for word in words)
    strides: dict[str, int] = {}
    length = _lay_out(ast.parse(source, mode="eval").body, lengths, 1, strides)
    return Combination(length, lengths, strides)


def product_of_all(lengths: Mapping[str, int]) -> Combination:
    """Return the product of all axes in their order; the last axis changes fastest."""
    return parse_combination(" * ".join(lengths), lengths)


def _words(expression: str) -> list[str]:
    """Split an expression into names and symbols."""
    if len(expression) > MAX_EXPRESSION_CHARACTERS:
        raise RowValueError(f"combine has more than {MAX_EXPRESSION_CHARACTERS:,} characters")
    words: list[str] = []
    text, position = expression.rstrip(), 0
    while position < len(text):
        found = _WORD.match(text, position)
        if not found:
            raise RowValueError(
                f"combine: expected axes, '*', ',' and parentheses, not {shown(text[position:])}"
            )
        words.append(found.group(1))
        position = found.end()
    return words


def _check_grammar(words: list[str]) -> None:
    """Refuse words that do not follow the grammar."""
    depth, needs_term = 0, True
    for word in (*words, _END):
        begins_term = word == "(" or word.isidentifier()
        if needs_term:
            is_expected, expected = begins_term, "an axis or '('"
        elif depth:
            is_expected, expected = word in ("*", ",", ")"), "'*', ',' or ')'"
        else:
            is_expected, expected = word in ("*", _END), "'*' or the end"
        if not is_expected:
            came = "the end" if word == _END else shown(word)
            raise RowValueError(f"combine: expected {expected}, not {came}")
        depth += (word == "(") - (word == ")")
        if depth > _MAX_DEPTH:
            raise RowValueError(f"combine has more than {_MAX_DEPTH} parentheses inside each other")
        needs_term = word in ("*", ",", "(")


def _lay_out(
    node: ast.expr, lengths: Mapping[str, int], stride: int, strides: dict[str, int]
) -> int:
    """Enter the stride of each axis below `node` and return the length of `node`.

    Args:
        node: a name, a product or a pairing.
        lengths: number of values of each axis.
        stride: number of clips after which `node` takes its next value.
        strides: filled by axis.
    """
    match node:
        case ast.BinOp(left=left, right=right):
            length = _lay_out(right, lengths, stride, strides)
            return length * _lay_out(left, lengths, stride * length, strides)
        case ast.Tuple(elts=members):
            sizes = [_lay_out(member, lengths, stride, strides) for member in members]
            if len(set(sizes)) > 1:
                text = ", ".join(
                    f"{_label(member)} has {size:,}"
                    for member, size in zip(members, sizes, strict=True)
                )
                raise RowValueError(f"combine: a pairing needs equal lengths; {text}")
            return sizes[0]
        case _:
            name = _label(node)
            strides[name] = stride
            return lengths[name]


def _label(node: ast.expr) -> str:
    """Return the expression below `node` as it was written, without the prefix of its names."""
    return re.sub(r"\b_", "", ast.unparse(node))
