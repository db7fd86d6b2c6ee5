"""docs/ipu_model*: what is called exact names a test that shows it, and each named test exists."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted((ROOT / "docs" / "ipu_model").glob("*.md"))
NAMED = re.compile(r"`(test_\w+\.py)(?:::(test_\w+))?`")
FILES = {path.name: path for path in (ROOT / "tests").glob("*/test_*.py")}


def rows(page):
    """Cells of every row of a page's tables with three columns."""
    for line in page.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 3:
            yield cells


@functools.lru_cache(maxsize=None)
def defined(path):
    """Names of a file's test functions."""
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_each_named_test_exists(page):
    named = NAMED.findall(page.read_text())
    assert named
    missing = [(file, test) for file, test in named if file not in FILES or (test and test not in defined(FILES[file]))]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_what_is_called_exact_names_its_test(page):
    exact = [cells for cells in rows(page) if cells[1].startswith("exact")]
    assert exact
    assert not [name for name, _, shown in exact if not NAMED.search(shown) and "](" not in shown]


def test_each_page_is_in_the_list_of_groups():
    text = (ROOT / "docs" / "ipu_model.md").read_text()
    assert len(PAGES) >= 7 and all(f"(ipu_model/{page.name})" in text for page in PAGES)


@pytest.mark.parametrize("page", [ROOT / "docs" / "ipu_model.md", *PAGES], ids=lambda path: path.stem)
def test_links_lead_somewhere(page):
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", page.read_text()) if "://" not in link]
    assert links and all((page.parent / link).exists() for link in links if link)
