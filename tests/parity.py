"""An environment in which an untrained policy sometimes wins."""

from agentgym.env.base import Opening, Outcome, TextEnv


class Parity(TextEnv):
    """Two turns; rewards actions with an odd sum of character codes."""

    def tasks(self, split):
        return ("parity",)

    def start(self, task, rng):
        self.heard = ""
        return Opening("say something", "say something odd")

    def act(self, action):
        self.heard += action
        odd, last = sum(map(ord, action)) % 2, len(self.heard) > len(action)
        return Outcome("odd" if odd else "even", reward=odd / 2, done=last)
