"""What an agent must know to act in ALFWorld."""

from __future__ import annotations

_MOVE = "- move OBJECT to RECEPTACLE, such as `move cup 1 to desk 1`: put down what you carry"
_PUT = "- put OBJECT in/on RECEPTACLE, such as `put cup 1 in/on desk 1`: put down what you carry"
_EITHER = (
    "- move OBJECT to RECEPTACLE, such as `move cup 1 to desk 1`: put down what you carry; older "
    "games write `put cup 1 in/on desk 1`, and both forms are understood"
)


def manual(wording: str) -> str:
    """The manual.

    Args:
        wording: ``new``, ``old``, or ``either`` where games of both wordings are played.
    """
    put = {"new": _MOVE, "old": _PUT, "either": _EITHER}[wording]
    return f"""\
You are in a room of a household simulation in text and have a task, such as to put a clean cup \
on a desk. Objects and receptacles (furniture and devices) have a name and a number.
Each action is one command:
- go to RECEPTACLE, such as `go to fridge 1`: you can only handle what is where you are
- open RECEPTACLE, close RECEPTACLE, such as `open drawer 2`
- take OBJECT from RECEPTACLE, such as `take cup 1 from shelf 3`: you carry one object at a time
{put}
- clean OBJECT with RECEPTACLE, such as `clean cup 1 with sinkbasin 1`
- heat OBJECT with RECEPTACLE, such as `heat egg 1 with microwave 1`
- cool OBJECT with RECEPTACLE, such as `cool apple 1 with fridge 1`
- slice OBJECT with OBJECT, such as `slice bread 1 with knife 1`: you must carry the knife
- use LAMP, such as `use desklamp 1`: switch it on or off
- examine OBJECT or RECEPTACLE, such as `examine book 1`
- look, inventory, help
Each turn answers with what happened and what you see there. `Nothing happens.` means that the \
command is not possible now: check where you are, what you carry and how the command is written.
The episode ends when the task is done, which is the only thing rewarded, or at the turn limit."""
