"""Writes keys.md, and the JSON schema beside the shipped spaces: `python docs/keys.py`."""

from pathlib import Path

from rssearch.config import reference

PAGE = Path(__file__).with_suffix(".md")


def files() -> dict[Path, str]:
    """What is generated from the schema of a study."""
    return {PAGE: reference.page(), reference.SCHEMA_FILE: reference.schema_text()}


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
