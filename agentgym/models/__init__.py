"""The policy network: loading, tree attention, LoRA, the LM head, and models made from scratch."""
