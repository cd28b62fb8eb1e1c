"""What an agent must know to act in TextWorld."""

MANUAL = """\
You play a text adventure: explore rooms, handle things, and reach the stated goal.
Each action is one command:
- look, inventory
- go DIRECTION, such as `go north` (north, south, east, west)
- examine THING, such as `examine cookbook`: also how to read it
- open THING, close THING, such as `open fridge`
- unlock THING with KEY, lock THING with KEY, such as `unlock wooden door with old key`
- take THING, take THING from PLACE, such as `take knife` or `take carrot from fridge`
- drop THING, such as `drop knife`
- put THING on PLACE, such as `put carrot on counter`
- insert THING into PLACE, such as `insert carrot into fridge`
- cook THING with DEVICE, such as `cook carrot with stove`: a stove fries, an oven roasts, a BBQ \
grills
- slice THING with KNIFE, chop THING with KNIFE, dice THING with KNIFE, such as \
`dice carrot with knife`: you must carry both
- prepare meal: in the kitchen, when you carry every ingredient as the recipe wants it
- eat THING, drink THING, such as `eat meal`
Not every game needs every command. Each turn answers with what happened and, in a new room, what \
is there. A command that is not understood or not possible changes nothing.
The episode ends when the goal is reached, when it can no longer be reached (such as after eating, \
burning or spoiling an ingredient), or at the turn limit."""
