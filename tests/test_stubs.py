"""The committed stub of the compiled module says what the module says."""

from __future__ import annotations

import ast
import inspect
import re
from importlib.resources import files

from gradkern import _core


def _parameters(doc: str) -> list[str]:
    """Names of the parameters in the signature that pybind11 writes on the first line of a docstring."""
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
    return [re.split(r"[:=]", name)[0].strip() for name in names if name.strip()]


def _stub() -> ast.Module:
    return ast.parse((files("gradkern") / "_core.pyi").read_text())


def _stub_functions(body: list[ast.stmt]) -> dict[str, list[str]]:
    return {node.name: [a.arg for a in node.args.args] for node in body if isinstance(node, ast.FunctionDef)}


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
    stub = {n.name: _stub_functions(n.body) for n in _stub().body if isinstance(n, ast.ClassDef)}["ChainRun"]
    assert set(stub) - {"__init__"} == _public(_core.ChainRun)
    for name, parameters in stub.items():
        documented = _parameters(inspect.getdoc(getattr(_core.ChainRun, name)) or "")
        assert parameters[1:] == documented[1:], name


def test_typed_marker_is_shipped() -> None:
    assert (files("gradkern") / "py.typed").is_file()
