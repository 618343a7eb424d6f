"""The committed stub of the compiled module says what the module says."""

from __future__ import annotations

import ast
import inspect
from importlib.resources import files

from gradkern import _core


def _parameters(doc: str) -> list[str]:
    """Parameters, ``name`` or ``name=default``, in the signature that pybind11 writes on the first line of a docstring."""
    signature = doc.splitlines()[0]
    inside = signature[signature.index("(") + 1 :]
    depth, names, token = 0, [], ""
    for char in inside:
        if char in "[(":
            depth += 1
        elif char in "])":
            if depth == 0:
                break
            depth -= 1
        if depth == 0 and char == ",":
            names.append(token)
            token = ""
        else:
            token += char
    names.append(token)
    parts = [name.partition(" = ") for name in names if name.strip()]
    return [before.partition(":")[0].strip() + ("=" + default if equals else "") for before, equals, default in parts]


def _stub() -> ast.Module:
    return ast.parse((files("gradkern") / "_core.pyi").read_text())


def _stub_functions(body: list[ast.stmt]) -> dict[str, list[str]]:
    return {node.name: _stub_parameters(node.args) for node in body if isinstance(node, ast.FunctionDef)}


def _stub_parameters(given: ast.arguments) -> list[str]:
    """As `_parameters`, the star before keywords included."""
    defaults = [None] * (len(given.args) - len(given.defaults)) + given.defaults
    found = [*zip(given.args, defaults, strict=True), *zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    written = [a.arg + (f"={ast.unparse(default)}" if default else "") for a, default in found]
    if given.kwonlyargs:
        written.insert(len(given.args), "*")
    return written


def _public(module: object) -> set[str]:
    return {name for name in vars(module) if not name.startswith("_")}


def test_stub_names_are_the_modules_names() -> None:
    body = _stub().body
    assigned = {n.target.id for n in body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    classes = {n.name for n in body if isinstance(n, ast.ClassDef)}
    assert set(_stub_functions(body)) | assigned | classes == _public(_core)


def test_stub_parameters_are_the_modules_parameters() -> None:
    for name, parameters in _stub_functions(_stub().body).items():
        assert parameters == _parameters(getattr(_core, name).__doc__), name


def test_stub_methods_are_the_classes_methods() -> None:
    for node in (n for n in _stub().body if isinstance(n, ast.ClassDef)):
        cls, stub = getattr(_core, node.name), _stub_functions(node.body)
        assert {name for name in stub if not name.startswith("_")} == _public(cls), node.name
        for name, parameters in stub.items():
            attribute = inspect.getattr_static(cls, name)
            if isinstance(attribute, property):
                assert parameters == ["self"], (node.name, name)
            else:
                assert parameters == _parameters(inspect.getdoc(getattr(cls, name)) or ""), (node.name, name)


def test_typed_marker_is_shipped() -> None:
    assert (files("gradkern") / "py.typed").is_file()
