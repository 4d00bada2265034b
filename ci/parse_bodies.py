"""Checks what sqlfluff cannot see, the bodies of routines, and the house rules about .sql files.

sqlfluff takes a ``$$`` body for one literal. Here pglast parses every plpgsql body, and a body in
plain SQL is parsed and linted as if it were a file. Prints ``file:line: problem``; exits 1 if any.
``--fix`` first rewrites these bodies as ``sqlfluff fix`` would.
"""

from __future__ import annotations

import re
import sys
import textwrap
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pglast
from pglast import ast
from pglast.enums import FunctionParameterMode as Mode
from sqlfluff.core import FluffConfig, Linter

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = "retally"
ROOMS = ("sql", "procedures")
# INOUT is not among them: a procedure's result row is made of INOUT columns.
_INPUTS = {Mode.FUNC_PARAM_IN, Mode.FUNC_PARAM_DEFAULT, Mode.FUNC_PARAM_VARIADIC}
# sqlfluff takes a routine's parameters for unqualified columns (RF02, RF03) and cannot know that
# RETURNS TABLE names the columns of the body's query (AL03) and orders them (ST06).
_NOT_IN_BODIES = "RF02,RF03,AL03,ST06"

Problem = tuple[int, str]  # line, what


@dataclass(frozen=True)
class Statement:
    """One statement of a file: its text, the line it starts in, its parse tree."""

    text: str
    line: int
    tree: Any


@dataclass(frozen=True)
class Routine:
    """One CREATE FUNCTION or CREATE PROCEDURE."""

    statement: Statement
    name: tuple[str, ...]
    options: dict[str, Any]

    @property
    def language(self) -> str:
        language = self.options.get("language")
        return str(language.sval) if language else "none"

    @property
    def body(self) -> str | None:
        """The body between its dollar signs; None where it is not a dollar-quoted string."""
        given = self.options.get("as")
        body = str(given[0].sval) if given else None
        return body if body and f"${body}$" in self.statement.text else None


def statements(text: str) -> Iterator[Statement]:
    """The statements of a file. pglast.parser.ParseError."""
    for raw in pglast.parse_sql(text):
        start = raw.stmt_location or 0
        end = start + raw.stmt_len if raw.stmt_len else len(text)
        yield Statement(text[start:end], text.count("\n", 0, start) + 1, raw.stmt)


def routines(found: list[Statement]) -> Iterator[Routine]:
    for each in found:
        if isinstance(each.tree, ast.CreateFunctionStmt):
            options = {option.defname: option.arg for option in each.tree.options or ()}
            yield Routine(each, _parts(each.tree.funcname), options)


def _parts(names: Any) -> tuple[str, ...]:
    return tuple(str(part.sval) for part in names)


def _relation(given: Any) -> tuple[str, ...]:
    named = getattr(given, "rel", given)
    return (named.schemaname or "", named.relname)


def created(tree: Any) -> tuple[str, ...] | None:
    """The name of the thing that a CREATE statement makes, its schema first where given."""
    match tree:
        case ast.CreateStmt(relation=made) | ast.ViewStmt(view=made):
            return _relation(made)
        case ast.CreateSeqStmt(sequence=made) | ast.CompositeTypeStmt(typevar=made):
            return _relation(made)
        case ast.CreateTableAsStmt(into=into):
            return _relation(into)
        case ast.CreateFunctionStmt(funcname=names) | ast.CreateEnumStmt(typeName=names):
            return _parts(names)
        case ast.CreateDomainStmt(domainname=names):
            return _parts(names)
        case ast.CreateSchemaStmt(schemaname=name):
            return (str(name),)
    return None


def commented(tree: Any) -> tuple[str, ...] | None:
    """The name of the thing that a COMMENT ON statement describes."""
    match tree:
        case ast.CommentStmt(object=ast.String(sval=name)):
            return (str(name),)
        case ast.CommentStmt(object=ast.ObjectWithArgs(objname=names)):
            return _parts(names)
        case ast.CommentStmt(object=ast.TypeName(names=names)):
            return _parts(names)
        case ast.CommentStmt(object=names):
            return _parts(names)
    return None


def check_body(routine: Routine, linter: Linter) -> Iterator[Problem]:
    """That the body parses, and that plain SQL in it is linted."""
    line = routine.statement.line
    body = routine.body
    if routine.statement.tree.sql_body is not None:
        yield line, "BEGIN ATOMIC blocks ALTER COLUMN TYPE on the farm's tables: use a $$ body"
    elif body is None:
        yield line, "the body must be a dollar-quoted string"
    elif routine.language == "plpgsql":
        try:
            pglast.parse_plpgsql(without_own_types(routine.statement.text))
        except pglast.parser.ParseError as error:
            yield line, f"plpgsql body: {error}"
    elif routine.language == "sql":
        start = routine.statement.text.index(f"${body}$") + 1
        line += routine.statement.text.count("\n", 0, start)
        for offset, what in check_sql(body, linter):
            yield line + offset, what
    else:
        yield line, f"language {routine.language}: only plpgsql and sql are known here"


def without_own_types(text: str) -> str:
    """The routine with ``record`` for our composite types: pglast knows the schema public alone."""
    named = rf"\b{SCHEMA}\.(?:{_own_types()})\b(?!\s*\()(?:\s*\[\s*\])?"
    return re.sub(named, "record", text)


@cache
def _own_types() -> str:
    """The names of all composite types and tables in our schema, as a pattern's alternatives."""
    found = [
        name[-1]
        for path in sql_files()
        for each in statements(path.read_text(encoding="utf-8"))
        if isinstance(each.tree, ast.CompositeTypeStmt | ast.CreateStmt)
        and (name := created(each.tree))
    ]
    return "|".join(map(re.escape, found)) or "(?!)"


def sql_files() -> list[Path]:
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.sql"))


def check_sql(body: str, linter: Linter) -> Iterator[Problem]:
    """Problems of a body in plain SQL; lines counted from the body's first, which is 0."""
    try:
        pglast.parse_sql(body)
    except pglast.parser.ParseError as error:
        yield 0, f"SQL body: {error}"
        return
    blank = len(body) - len(body.lstrip("\n"))
    for found in linter.lint_string(as_file(body)).get_violations():
        yield blank + found.line_no - 1, f"{found.rule_code()} in the body: {found.desc()}"


def as_file(body: str) -> str:
    """The body as a file would hold it: no indentation, one newline at its end."""
    return textwrap.dedent(body.strip("\n")).rstrip() + "\n"


def fix(path: Path, linter: Linter) -> None:
    """Rewrite the bodies in plain SQL as sqlfluff wants them."""
    text = path.read_text(encoding="utf-8")
    for routine in routines(list(statements(text))):
        body = routine.body
        if routine.language == "sql" and body:
            indentation = re.match(r"\s*\n( *)", body)
            fixed, _ = linter.lint_string(as_file(body), fix=True).fix_string()
            fixed = textwrap.indent(fixed, indentation[1] if indentation else "")
            text = text.replace(f"${body}$", f"$\n{fixed}$")
    path.write_text(text, encoding="utf-8")


def check_routine_file(path: Path, found: list[Routine]) -> Iterator[Problem]:
    """The rules of procedures/; that each routine is called is tests/test_routines.py's to see."""
    if len(found) != 1:
        yield 1, f"one routine per file, here are {len(found)}"
    for routine in found:
        line = routine.statement.line
        if routine.name != (SCHEMA, path.stem):
            yield line, f"{'.'.join(routine.name)} must be named {SCHEMA}.{path.stem}, as its file"
        security = routine.options.get("security")
        if security is not None and security.boolval and not _is_safe_trigger(routine):
            yield line, "SECURITY DEFINER: every routine runs with its caller's rights"
        for parameter in routine.statement.tree.parameters or ():
            if parameter.mode in _INPUTS and not (parameter.name or "").startswith("p_"):
                yield line, f"parameter {parameter.name or '(unnamed)'} must be called p_…"


def _is_safe_trigger(routine: Routine) -> bool:
    """A trigger's function, in which nobody's search_path counts, and no table but one.

    Who writes to a farm's table has no rights on ours. Anybody may put the function on a table of
    his own: before all else it refuses any table but the farm's.
    """
    returned = routine.statement.tree.returnType
    path = "SET search_path = pg_catalog, pg_temp"
    first = re.search(r"\bBEGIN\b(?:\s+--[^\n]*)*\s+(IF [^\n]*)", routine.statement.text)
    guarded = first is not None and first[1] == "IF TG_RELID <> 'public.proc'::regclass THEN"
    return returned.names[-1].sval == "trigger" and path in routine.statement.text and guarded


def _config() -> FluffConfig:
    """The project's sqlfluff configuration, less the rules that cannot judge a body."""
    excluded = FluffConfig.from_path(str(ROOT)).get("exclude_rules") or ""
    overrides: dict[str, Any] = {"exclude_rules": f"{excluded},{_NOT_IN_BODIES}".strip(",")}
    return FluffConfig.from_path(str(ROOT), overrides=overrides)


def check_comments(paths: list[Path]) -> Iterator[tuple[Path, int, str]]:
    """That whatever is created in our schema is described, in a file of the same folder."""
    made: list[tuple[Path, int, tuple[str, ...]]] = []
    described: set[tuple[Path, tuple[str, ...]]] = set()
    for path in paths:
        for each in statements(path.read_text(encoding="utf-8")):
            if (name := created(each.tree)) and name[0] == SCHEMA:
                made.append((path, each.line, name))
            if about := commented(each.tree):
                described.add((path.parent, about))
    for path, line, name in made:
        if (path.parent, name) not in described:
            yield path, line, f"no COMMENT ON {'.'.join(name)} in this folder"


def check_file(path: Path, linter: Linter) -> Iterator[Problem]:
    """All rules about one file."""
    found = list(routines(list(statements(path.read_text(encoding="utf-8")))))
    for routine in found:
        yield from check_body(routine, linter)
    if path.is_relative_to(ROOT / "procedures"):
        yield from check_routine_file(path, found)


def main() -> int:
    linter = Linter(config=_config())
    problems: list[tuple[Path, int, str]] = []
    parsed: list[Path] = []
    paths = sql_files()
    for path in paths:
        try:
            if "--fix" in sys.argv[1:]:
                fix(path, linter)
            problems += [(path, *problem) for problem in check_file(path, linter)]
            parsed.append(path)
        except pglast.parser.ParseError as error:
            problems.append((path, 1, str(error)))
    problems += check_comments(parsed)
    for path, line, what in sorted(problems):
        print(f"{path.relative_to(ROOT)}:{line}: {what}")
    print(f"{len(paths)} files, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
