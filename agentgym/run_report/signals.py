"""Plots of what happens inside training: entropy, rewards, lengths, clipping, losses, the rest."""

from __future__ import annotations

from typing import NamedTuple

from agentgym.evaluation.plots import SUCCESS
from agentgym.run_report.run import Arm, Run
from agentgym.run_report.success import arm_lines
from agentgym.run_report.svg import Line, plot


class Signal(NamedTuple):
    """One plot: what it shows, in which metrics, and how to read it."""

    title: str
    patterns: tuple[str, ...]
    reading: str


SIGNALS = (
    Signal(
        "Entropy, nats per token",
        ("policy/entropy", "policy/entropy_sampled"),
        "How much the policy explores. It falls as the policy learns; near 0 it repeats itself.",
    ),
    Signal(
        "Reward of an episode",
        ("episode/reward", "episode/score"),
        "Mean return, and the environment's own score.",
    ),
    Signal("Length of an episode, turns", ("episode/turns",), "Shorter means more direct."),
    Signal(
        "Turns that the environment could use",
        ("episode/parsed", "episode/valid"),
        "Share of turns with a readable action, and with one that was accepted.",
    ),
    Signal(
        "What limits cut off",
        ("episode/truncated", "episode/cut"),
        "Share of episodes that a limit ended; share of completions cut at their longest.",
    ),
    Signal(
        "Groups without a lesson",
        ("group/tied", "group/identical"),
        "Share of tasks whose episodes all return the same, or all act the same.",
    ),
    Signal(
        "Clipped tokens",
        ("*/clipped", "*/stopped_positive", "*/stopped_negative"),
        "Share of tokens whose update the loss limits.",
    ),
    Signal("KL divergence of an update", ("*/kl",), "How far one update moves the policy."),
    Signal("Gradient norm", ("*/grad_norm", "*/critic_grad_norm"), "Before it is clipped."),
    Signal("Loss", ("*/loss",), "Its level has no meaning of its own; jumps have."),
    Signal(
        "Parts of the loss, gradient norms",
        ("*/norm/*",),
        "A part near 0 does nothing.",
    ),
    Signal(
        "Engine against trainer, nats per token",
        ("policy/mismatch", "policy/logprob_gap"),
        "Beyond rounding, engine and trainer hold different policies.",
    ),
    Signal("Tokens per second", ("tokens_per_second",), "Of the whole step."),
)


def signal_plots(arms: list[Arm]) -> list[str]:
    """The plots of ``SIGNALS``: all metrics of one run, or the first metric of several arms."""
    found = []
    for signal in SIGNALS:
        names = arms[0].runs[0].names(*signal.patterns)
        if not names:
            continue
        if len(arms) == 1 and len(arms[0].runs) == 1:
            run = arms[0].runs[0]
            lines = [
                Line(*run.series(name), name if len(names) > 1 else "", colour=n)
                for n, name in enumerate(names)
            ]
            title = signal.title
        else:
            lines = [
                line for n, arm in enumerate(arms) for line in arm_lines(arm, names[0], "step", n)
            ]
            title = f"{signal.title}: {names[0]}" if len(names) > 1 else signal.title
        if drawn := plot(title, lines):
            found.append(drawn.replace("</figure>", f"<p>{signal.reading}</p></figure>"))
    return found


def other_plots(run: Run) -> list[str]:
    """One small plot for each metric that no other plot shows."""
    shown = {name for signal in SIGNALS for name in run.names(*signal.patterns)}
    shown |= set(run.names("time/*", "alarm/*")) | {SUCCESS, f"{SUCCESS}_error"}
    left = [name for name in run.names("*") if name not in shown]
    return [drawn for name in left if (drawn := plot(name, [Line(*run.series(name))]))]
