"""Docs, messages and help use the words of docs/glossary.md, and none of those it has retired."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "analysis" / "cafetal"
GLOSSARY = ROOT / "docs" / "glossary.md"
PAGES = [path for path in (ROOT / "docs").rglob("*.md") if path != GLOSSARY and "_build" not in path.parts]
PAGES += [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
MODULES = [path for path in PACKAGE.rglob("*.py") if "templates" not in path.parts]


def retired():
    """Patterns of the retired words; brackets explain a word, and commas separate forms."""
    section = GLOSSARY.read_text().partition("## Retired words")[2]
    rows = re.findall(r"^\| (.+?) \| .+ \|$", section, re.MULTILINE)
    words = [re.sub(r" \(.*\)", "", word) for row in rows for word in row.split(",") if row != "retired"]
    return [word.strip() for word in words if set(word) - set("-|")]


def found(text):
    """Return the retired words in a text."""
    return [word for word in retired() if re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE)]


def messages(path):
    """Yield texts that users read: all string constants of a module except docstrings, also of attributes."""
    tree = ast.parse(path.read_text())
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def test_the_list_is_read():
    assert {"broken off", "gone on with", "whereabouts", "anew"} <= set(retired())
    assert found("The run was Broken off.") == ["broken off"]
    assert found("renewed") == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages(page):
    assert found(page.read_text()) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_messages(path):
    wrong = [(line, text, found(text)) for line, text in messages(path) if found(text)]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sentences_begin_with_their_subject(page):
    """Sentences of the docs begin with their subject, and deny with "is not a X"."""
    prose = re.sub(r"```.*?```|`[^`]*`|^\|.*$|^    .*$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    relative = re.findall(r"(?:^|[.:?!] )((?:Of|What|Who|That) [a-z].{0,40})", prose, re.MULTILINE)
    assert [start for start in relative if "?" not in start] == []
    assert re.findall(r"\bis no [a-z]+", prose) == []
