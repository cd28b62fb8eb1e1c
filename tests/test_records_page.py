"""The page on records documents every field of the schema, in the words of the code."""

from pathlib import Path

import pytest
from field_tables import table

from agentgym.evaluation.records import SCHEMA, EpisodeRecord, Rescoring, TurnRecord
from agentgym.types import Stop, ToolCall

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "records.md"


@pytest.mark.parametrize("kind", [EpisodeRecord, TurnRecord, ToolCall, Rescoring])
def test_every_field_stands_on_the_page_as_the_code_documents_it(kind):
    assert table(kind) in PAGE.read_text(encoding="utf-8"), table(kind)


def test_the_page_names_the_version_and_every_ending():
    text = PAGE.read_text(encoding="utf-8")
    assert f"schema {SCHEMA}" in text
    assert all(f"`{stop}`" in text for stop in Stop)
