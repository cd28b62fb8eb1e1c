"""An environment that counts calls."""

from agentgym.env.base import Opening, Outcome, TextEnv


class Counter(TextEnv):
    """Collects actions for four turns; its state is the whole history.

    Every step is counted, and every environment that is opened, forked or closed.
    """

    steps = opened = forked = closed = 0

    def tasks(self, split):
        return ("count",)

    def start(self, task, rng):
        self.actions = []
        Counter.opened += 1
        return Opening("say a number", "say numbers")

    def act(self, action):
        Counter.steps += 1
        self.actions.append(action)
        return Outcome(" ".join(self.actions), reward=1.0, done=len(self.actions) == 4)

    def fork(self):
        Counter.forked += 1
        return super().fork()

    def close(self):
        Counter.closed += 1
