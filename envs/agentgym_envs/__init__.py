"""The environments that ship with agentgym."""

import gymnasium


def register_all() -> None:
    """Register every environment with Gymnasium; imports none of them."""
    for id_, entry, turns in [
        ("agentgym/ALFWorld-v0", "agentgym_envs.alfworld.env:ALFWorld", 50),
        ("agentgym/AgentDojo-v0", "agentgym_envs.agentdojo.env:AgentDojo", 20),
        ("agentgym/BFCL-v0", "agentgym_envs.bfcl.env:BFCL", 64),
        ("agentgym/BabyAI-v0", "agentgym_envs.babyai.env:BabyAI", 128),
        ("agentgym/DeepSearch-v0", "agentgym_envs.deepsearch.env:DeepSearch", 16),
        ("agentgym/Hotter-v0", "agentgym_envs.hotter:Hotter", 12),
        ("agentgym/MiniWoB-v0", "agentgym_envs.miniwob.env:MiniWoB", 15),
        ("agentgym/PythonMath-v0", "agentgym_envs.pythonmath.env:PythonMath", 8),
        ("agentgym/ScienceWorld-v0", "agentgym_envs.scienceworld.env:ScienceWorld", 200),
        ("agentgym/Tau2-v0", "agentgym_envs.tau2.env:Tau2", 100),
        ("agentgym/TextWorld-v0", "agentgym_envs.textworld.env:TextWorld", 50),
        ("agentgym/Web-v0", "agentgym_envs.web.env:Web", 20),
        ("agentgym/WebShop-v0", "agentgym_envs.webshop.env:WebShop", 15),
    ]:
        if id_ not in gymnasium.registry:
            gymnasium.register(id_, entry, max_episode_steps=turns)
