"""A YAML loader for config files: plain YAML, plus lists of arithmetic.

Published configs write size lists as code for Python's eval::

    MIN_SIZE_TRAIN: !!python/object/apply:eval ["[int(x * 0.1 * 640) for x in range(5, 21)]"]

detectron2 hands such a file to ``yaml.unsafe_load``, which can run anything. Here the text is
parsed and evaluated by the walker below, which knows numbers, lists, ``+ - * /``, ``int()`` and
list comprehensions over ``range()``, and nothing else.
"""

from __future__ import annotations

import ast
import operator
from typing import Any

import yaml

_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
# No honest size list comes near these; they keep a hostile file from eating time and memory.
_MAX_TEXT = 1000
_MAX_STEPS = 100_000


def evaluate_arithmetic(text: str) -> Any:
    """Evaluate a number, or a (nested) list of numbers, written as a Python expression.

    Raises:
        ValueError: anything but numbers, lists, tuples, ``+ - * /``, ``int(x)`` and
            ``[... for name in range(...)]``; or an expression that is far too long.
    """
    if len(text) > _MAX_TEXT:
        raise ValueError(f"expression of {len(text)} characters; at most {_MAX_TEXT} are allowed")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, RecursionError) as error:
        raise ValueError(f"{text!r} is no expression: {error}") from error
    return _Evaluator(text).visit(tree.body, {})


class _Evaluator:
    def __init__(self, text: str) -> None:
        self._text = text
        self._steps = 0

    def visit(self, node: ast.AST, names: dict[str, int]) -> Any:
        self._steps += 1
        if self._steps > _MAX_STEPS:
            raise ValueError(f"{self._text!r} takes more than {_MAX_STEPS} steps")
        method = getattr(self, f"_{type(node).__name__}", None)
        if method is None:
            raise self._refusal(node)
        return method(node, names)

    def _refusal(self, node: ast.AST) -> ValueError:
        part = ast.unparse(node)
        return ValueError(
            f"{part!r} in {self._text!r} is not allowed: config files may only compute with "
            "numbers, + - * /, int() and list comprehensions over range()"
        )

    def _number(self, node: ast.AST, names: dict[str, int]) -> int | float:
        value = self.visit(node, names)
        if not isinstance(value, (int, float)):
            raise self._refusal(node)
        return value

    def _Constant(self, node: ast.Constant, names: dict[str, int]) -> int | float:
        if type(node.value) not in (int, float):
            raise self._refusal(node)
        return node.value

    def _Name(self, node: ast.Name, names: dict[str, int]) -> int:
        if node.id not in names:
            raise self._refusal(node)
        return names[node.id]

    def _List(self, node: ast.List, names: dict[str, int]) -> list:
        return [self.visit(element, names) for element in node.elts]

    def _Tuple(self, node: ast.Tuple, names: dict[str, int]) -> tuple:
        return tuple(self.visit(element, names) for element in node.elts)

    def _UnaryOp(self, node: ast.UnaryOp, names: dict[str, int]) -> int | float:
        return self._apply(node, [node.operand], names)

    def _BinOp(self, node: ast.BinOp, names: dict[str, int]) -> int | float:
        return self._apply(node, [node.left, node.right], names)

    def _apply(self, node: Any, operands: list[ast.AST], names: dict[str, int]) -> int | float:
        function = _OPERATORS.get(type(node.op))
        if function is None:
            raise self._refusal(node)
        try:
            return function(*[self._number(operand, names) for operand in operands])
        except ArithmeticError as error:
            raise ValueError(f"{self._text!r}: {error}") from error

    def _Call(self, node: ast.Call, names: dict[str, int]) -> int:
        if self._called(node) != "int" or len(node.args) != 1:
            raise self._refusal(node)
        try:
            return int(self._number(node.args[0], names))
        except ArithmeticError as error:
            raise ValueError(f"{self._text!r}: {error}") from error

    @staticmethod
    def _called(node: ast.AST) -> str | None:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            return node.func.id
        return None

    def _ListComp(self, node: ast.ListComp, names: dict[str, int]) -> list:
        generator = node.generators[0]
        call = generator.iter
        simple = len(node.generators) == 1 and not generator.ifs and not generator.is_async
        if not simple or not isinstance(generator.target, ast.Name):
            raise self._refusal(node)
        if self._called(call) != "range" or not 1 <= len(call.args) <= 3:
            raise self._refusal(call)
        bounds = [self._number(argument, names) for argument in call.args]
        if not all(isinstance(bound, int) for bound in bounds):
            raise self._refusal(call)
        try:
            values = range(*bounds)
        except ValueError as error:  # a step of zero
            raise ValueError(f"{self._text!r}: {error}") from error
        return [self.visit(node.elt, {**names, generator.target.id: x}) for x in values]


class ConfigLoader(yaml.SafeLoader):
    """``yaml.SafeLoader`` plus ``!!python/object/apply:eval`` (as arithmetic) and tuples."""


def _construct_arithmetic(loader: ConfigLoader, node: yaml.Node) -> Any:
    arguments = loader.construct_sequence(node) if isinstance(node, yaml.SequenceNode) else []
    if len(arguments) != 1 or not isinstance(arguments[0], str):
        raise yaml.constructor.ConstructorError(
            None, None, 'expected one expression in quotes: ["..."]', node.start_mark
        )
    try:
        return evaluate_arithmetic(arguments[0])
    except ValueError as error:
        raise yaml.constructor.ConstructorError(None, None, str(error), node.start_mark) from error


def _construct_tuple(loader: ConfigLoader, node: yaml.SequenceNode) -> tuple:
    return tuple(loader.construct_sequence(node, deep=True))


def _refuse_python_tag(loader: ConfigLoader, suffix: str, node: yaml.Node) -> None:
    raise yaml.constructor.ConstructorError(
        None,
        None,
        f"the tag !!python/{suffix} is not allowed: config files hold values and cannot run code",
        node.start_mark,
    )


_PYTHON = "tag:yaml.org,2002:python/"
ConfigLoader.add_constructor(_PYTHON + "object/apply:eval", _construct_arithmetic)
ConfigLoader.add_constructor(_PYTHON + "tuple", _construct_tuple)
ConfigLoader.add_multi_constructor(_PYTHON, _refuse_python_tag)
