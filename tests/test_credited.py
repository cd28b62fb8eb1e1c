"""Advantages find their way back to the tokens of the episodes, whatever credit did to the rows."""

import torch

from agentgym.batch.batch import concatenate
from agentgym.batch.collate import collate
from agentgym.training.credited import POSITION, by_turn, take_advantages, with_positions
from agentgym.types import Completion, Stop, Task, Trajectory, Turn


def episode(sample, *turns, stop=Stop.TERMINATED):
    return Trajectory(Task("e", "t"), sample, "", "", turns, stop, float(sample))


def turn(prompt, size, *, fresh=False, learn=True, forced=(0, 0)):
    drawn = Completion((7,) * size, (-1.0,) * size, (1.0,) * size)
    return Turn((1,) * prompt, drawn, "a", "o", 0.0, fresh=fresh, learn=learn, forced=forced)


GROUPS = [
    [
        episode(0, turn(2, 3), turn(1, 2)),
        episode(1, turn(4, 1), stop=Stop.ENV_ERROR),
        episode(2, turn(2, 2, learn=False), turn(3, 3, fresh=True, forced=(1, 2))),
    ],
    [episode(0), episode(1, turn(1, 4))],
]


def numbered(batch):
    """Each position's advantage is its index, so it is recognised again."""
    return batch.with_(advantage=torch.arange(len(batch.tokens)).float())


def test_every_token_gets_its_own_number_back():
    batch = numbered(with_positions(collate(GROUPS)))
    batch, found = take_advantages(batch, len(batch.tokens))
    assert POSITION not in batch.extra
    assert by_turn(GROUPS, found) == [
        [((2.0, 3.0, 4.0), (6.0, 7.0)), (), ((0.0, 0.0), (15.0, 0.0, 17.0))],
        [(), ((19.0, 20.0, 21.0, 22.0),)],
    ]


def test_rows_may_be_moved_dropped_and_added():
    whole = with_positions(collate(GROUPS))
    size = len(whole.tokens)
    batch = numbered(whole)
    old = collate([[episode(9, turn(2, 5))]])
    old = old.with_(advantage=torch.full((7,), 99.0))
    order = torch.tensor([3, 1, 0])
    _, found = take_advantages(concatenate(batch.rows(order), old), size)
    assert by_turn(GROUPS, found)[0][0] == ((2.0, 3.0, 4.0), (6.0, 7.0))
    assert by_turn(GROUPS, found)[0][2] == ((0.0, 0.0), (0.0, 0.0, 0.0)), "its row was dropped"
    assert by_turn(GROUPS, found)[1][1] == ((19.0, 20.0, 21.0, 22.0),)
