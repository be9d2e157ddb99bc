"""MkDocs: what lies outside docs/ and is linked from a page becomes a page; so do the tutorials, which are scripts.

Links stay what they are in the repository, where they must lead somewhere as well: relative paths to files.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
OUTSIDE = "repository"  # the folder of the site that holds pages from outside docs/
_LINK = re.compile(r"(?<=\]\()(?P<path>[^)#:\s]+)(?P<anchor>#[^)\s]*)?(?=\))")
_SHOWN = {".py": "python", ".yaml": "yaml", ".toml": "toml", ".sh": "bash", "": "make"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Let pages that the navigation does not name stand at the end of its guide, so that none is forgotten."""
    nav: list[dict[str, Any]] = config.nav or []
    named = set(_named(nav))
    guide = next(part["Guide"] for part in nav if "Guide" in part)
    guide += sorted(page.name for page in (ROOT / "docs").glob("*.md") if page.name not in named)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the tutorials, and all that is linked from outside, to the pages."""
    todo = [file.src_uri for file in files.documentation_pages()]
    for script in sorted((ROOT / "docs" / "tutorials").glob("*.py")):
        files.append(File.generated(config, f"tutorials/{script.stem}.md", content=_notebook(script)))
    seen = set(todo)
    while todo:
        page = todo.pop()
        for path in _links(ROOT / _origin(page)):
            uri = _page(path)
            if not uri.startswith(OUTSIDE) or uri in seen:
                continue
            seen.add(uri)
            todo.append(uri)
            files.append(File.generated(config, uri, content=_content(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001  # MkDocs' names
    """Turn links between files of the repository into links between pages."""
    here = page.file.src_uri
    folder = posixpath.dirname(_origin(here))

    def led(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, found["path"]))
        if not (ROOT / path).is_file():
            return found[0]  # MkDocs says that it leads nowhere
        return posixpath.relpath(_page(path), posixpath.dirname(here) or ".") + (found["anchor"] or "")

    return _LINK.sub(led, markdown)


def _named(nav: Any) -> Iterator[str]:
    """The pages of a part of the navigation."""
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from _named(part)


def _links(page: Path) -> list[str]:
    """The files that a page links to, relative to the repository."""
    if page.suffix != ".md" or not page.is_file():
        return []
    text = page.read_text(encoding="utf-8")
    folder = page.parent.relative_to(ROOT).as_posix()
    paths = {posixpath.normpath(posixpath.join(folder, found["path"])) for found in _LINK.finditer(text)}
    return sorted(path for path in paths if (ROOT / path).is_file())


def _page(path: str) -> str:
    """The page of the site (or its other file) that shows a file of the repository."""
    inside = path.startswith("docs/")
    uri = path.removeprefix("docs/") if inside else f"{OUTSIDE}/{path}"
    if path.endswith(".py") and inside:
        return str(PurePosixPath(uri).with_suffix(".md"))
    return uri if inside or path.endswith((".md", ".png", ".csv")) else f"{uri}.md"


def _origin(uri: str) -> str:
    """The file of the repository that a page shows; the other way round of `_page`, for Markdown."""
    return uri.removeprefix(f"{OUTSIDE}/") if uri.startswith(OUTSIDE) else f"docs/{uri}"


def _content(path: str) -> bytes | str:
    """A file from outside as it stands, or as a page that shows it."""
    file = ROOT / path
    if file.suffix == ".md":
        return file.read_text(encoding="utf-8")
    if file.suffix in {".png", ".csv"}:
        return file.read_bytes()
    text = file.read_text(encoding="utf-8").rstrip()
    return f"# {path}\n\n```{_SHOWN.get(file.suffix, 'text')}\n{text}\n```\n"


def _notebook(script: Path) -> str:
    """A script with `# %%` cells as a page: comments of Markdown cells as text, the other cells as code."""
    parts = []
    for cell in re.split(r"^# %%", script.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        head, _, body = cell.partition("\n")
        if "[markdown]" in head:
            parts.append(re.sub(r"^# ?", "", body, flags=re.MULTILINE).strip())
        else:
            parts.append(f"```python\n{body.strip()}\n```")
    return "\n\n".join(parts) + "\n"
