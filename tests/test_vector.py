"""Environments give the same outputs alone, in Gymnasium vector environments and in a pool."""

import asyncio

import gymnasium
import pytest

import agentgym
from agentgym.env.process_pool import ProcessPool
from agentgym.env.registry import EnvFactory, world
from agentgym.errors import MissingExtra
from agentgym.types import Task

SMALL = {
    "agentgym/ALFWorld-v0": {"train_games": 8, "valid_games": 4, "test_games": 4},
    "agentgym/ScienceWorld-v0": {"tasks": "find-non-living-thing"},
    "agentgym/TextWorld-v0": {
        "family": "coin_collector",
        "difficulty": "easy",
        "train_games": 2,
        "valid_games": 1,
        "test_games": 1,
    },
}
"""Settings with which an environment starts at once."""
SENT = {"shared_memory": False, "context": "forkserver"}
"""Text has no fixed size, so it cannot lie in shared memory."""
ACTIONS = ("look", "0", "look")


def alone(env_id, seed):
    """Outputs of a single environment for the same actions, until it ends."""
    env = agentgym.make(env_id, **SMALL.get(env_id, {}))
    observation, info = env.reset(seed=seed)
    seen = [(observation, info["goal"])]
    for action in ACTIONS:
        observation, reward, terminated, truncated, info = env.step(action)
        seen.append((observation, reward, terminated, truncated, info["score"]))
        if terminated or truncated:
            break  # A vector environment begins a new episode.
    env.close()
    return seen


# TextWorld filters this warning once, at import; pytest resets warning filters after a test.
@pytest.mark.filterwarnings("ignore:.*is not fully supported")
@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("env_id", agentgym.environments())
def test_make_vec_gives_the_same_outputs_as_single_environments(env_id, mode):
    try:
        expected = [alone(env_id, seed) for seed in (7, 8)]
    except MissingExtra as missing:
        pytest.skip(str(missing))
    settings = SMALL.get(env_id, {})
    how = SENT if mode == "async" else {}
    envs = gymnasium.make_vec(
        env_id, num_envs=2, vectorization_mode=mode, vector_kwargs=how, **settings
    )
    observations, infos = envs.reset(seed=7)
    seen = [[found] for found in zip(observations, infos["goal"], strict=True)]
    for action in ACTIONS:
        answer = (*envs.step((action, action)),)
        columns = (*answer[:4], answer[4]["score"])
        for one, row in zip(seen, zip(*columns, strict=True), strict=True):
            one.append(row)
    envs.close()
    lengths = map(len, expected)
    assert [one[:length] for one, length in zip(seen, lengths, strict=True)] == expected


@pytest.mark.filterwarnings("ignore:.*is not fully supported")
@pytest.mark.parametrize("env_id", agentgym.environments())
def test_a_pool_and_its_forks_give_the_same_outputs_as_a_single_environment(env_id):
    maker = EnvFactory(kwargs=SMALL.get(env_id, {}), max_turns=20)
    try:
        bare = world(env_id, **maker.kwargs)
        task = Task(env_id, bare.tasks("train")[0], 7)
        bare.prepare([task.id])
        env = maker(task)
        expected = [env.reset(seed=7, options={"task": task.id})]
    except MissingExtra as missing:
        pytest.skip(str(missing))
    expected += [env.step(action) for action in ACTIONS]
    env.close()

    async def play():
        async with ProcessPool(workers=1) as pool:
            there = await pool.open(maker, task)
            seen = [await there.reset(task), await there.step(ACTIONS[0])]
            twin = await there.fork()
            rest = [[await one.step(action) for action in ACTIONS[1:]] for one in (there, twin)]
            for one in (there, twin):
                await one.close()
            return [*seen, *rest[0]], [*seen, *rest[1]]

    assert asyncio.run(play()) == (expected, expected)


def test_shared_memory_is_rejected_because_it_would_corrupt_text():
    """Gymnasium's text space would return one repeated letter; ours has no such buffer."""
    with pytest.raises(ValueError, match="shared_memory=False"):
        gymnasium.make_vec("agentgym/Hotter-v0", num_envs=2, vectorization_mode="async")
