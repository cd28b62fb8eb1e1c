"""Tables of the fields of dataclasses, from their source: what the page on records must show."""

import ast
import inspect


def table(kind):
    """Markdown rows: name, type, docstring of every field."""
    node = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(node, ast.ClassDef)
    rows = ["| field | type | meaning |", "|---|---|---|"]
    for field, text in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign):
            documented = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
            meaning = " ".join(text.value.value.replace("``", "`").split()) if documented else ""
            type_ = ast.unparse(field.annotation).replace("|", "\\|")
            rows.append(f"| `{field.target.id}` | `{type_}` | {meaning} |")
    return "\n".join(rows)
