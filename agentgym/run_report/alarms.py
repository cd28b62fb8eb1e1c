"""The alarms of a run in sentences: when each held, and what it means."""

from __future__ import annotations

import re
from html import escape

from agentgym.run_report.run import Run
from agentgym.training.alarms import ADVICE


def alarm_sentences(run: Run) -> list[str]:
    """One HTML sentence per alarm that was given, in the order of their first step."""
    found = []
    for name, advice in ADVICE.items():
        spans = active_spans(run, name)
        if spans:
            found.append((spans[0][0], _sentence(name, advice, spans, run.steps)))
    return [sentence for _, sentence in sorted(found)]


def active_spans(run: Run, name: str) -> list[tuple[int, int]]:
    """First and last step of each time that an alarm held for as long as it takes to warn."""
    alarms = run.settings.get("alarms") or {}
    patience = int(alarms.get("patience", 3))
    steps, counts = run.series(f"alarm/{name}")
    spans: list[tuple[int, int]] = []
    for step, count in zip(steps.astype(int), counts.astype(int), strict=True):
        if count == patience or (count > patience and not spans):
            spans.append((step - count + 1, step))
        elif count > patience:
            spans[-1] = (spans[-1][0], step)
    return spans


def _sentence(name: str, advice: str, spans: list[tuple[int, int]], last: int) -> str:
    when = ", ".join(f"{start} to {end}" for start, end in spans[:5])
    more = f" and {len(spans) - 5} more times" if len(spans) > 5 else ""
    now = " It still holds." if spans[-1][1] == last else ""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(advice))
    return f"<b>{escape(name)}</b>, steps {when}{more}: {text}.{now}"
