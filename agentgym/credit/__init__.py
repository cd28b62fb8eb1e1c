"""Which tokens earned the reward: transforms of a batch that end in advantages and weights."""
