"""Several processes train one model: `torchrun --nproc-per-node N -m agentgym train ...`.

Rank 0 leads: it plays, evaluates, writes the run folder, and sends the other ranks what the learner
does next. Weights, gradients and optimizer state are divided among the ranks by FSDP2. Algorithms,
credit and losses do not know about ranks.
"""
