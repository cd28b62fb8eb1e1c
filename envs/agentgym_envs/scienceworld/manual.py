"""What an agent must know to act in ScienceWorld."""

MANUAL = """\
You are in a simulated house with workshop, kitchen, greenhouse and more, and do an experiment of \
elementary science.
Each action is one command:
- look around, inventory, task
- look in OBJECT, look at OBJECT, examine OBJECT, such as `look in cupboard`
- go to PLACE, such as `go to kitchen`; `teleport to kitchen` where the settings allow it
- open OBJECT, close OBJECT, such as `open door to hallway`
- pick up OBJECT, put down OBJECT, such as `pick up thermometer`
- move OBJECT to OBJECT, such as `move metal pot to stove`
- pour OBJECT into OBJECT, dunk OBJECT into OBJECT, such as `pour water into cup`
- mix OBJECT: mix what is in a container, such as `mix cup`
- activate OBJECT, deactivate OBJECT, such as `activate stove`
- use OBJECT, use OBJECT on OBJECT, such as `use thermometer on water`
- connect OBJECT to OBJECT, disconnect OBJECT, such as `connect battery anode to wire terminal 1`
- read OBJECT, eat OBJECT, flush OBJECT, such as `read recipe`
- focus on OBJECT, such as `focus on water`: names the object that the task asks for; focusing on \
a wrong object fails the task
- wait: ten steps of the simulation pass; `wait1`: one step
- a number, such as `0`: the choice when the answer was `Ambiguous request`
Each turn answers with what happened. `No known action matches that input.` means that the command \
or the object is not known here.
The episode ends when the task is completed (100 points), when it fails, or at the turn limit."""
