"""Settings of a run that takes seconds: a model of 30,000 parameters in a small Hotter."""

from agentgym.settings import (
    Experiment,
    ImitationSettings,
    PanelSettings,
    RolloutSettings,
    ScratchSettings,
)

SHAPE = ScratchSettings(
    hidden_size=32, num_layers=1, num_heads=2, num_kv_heads=1, intermediate_size=32, vocab_size=400
)
SMALL_RUN = Experiment(
    env="agentgym/Hotter-v0",
    env_args={"high": 8},
    steps=3,
    tasks_per_step=2,
    imitation=ImitationSettings(max_steps=2, demos_per_task=1, batch_size=4, until_success=1),
    scratch=SHAPE,
    rollout=RolloutSettings(max_turns=3, max_context_tokens=256, max_completion_tokens=8),
    panel=PanelSettings(tasks=3, episodes=2),
)
