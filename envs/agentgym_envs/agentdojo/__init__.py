"""AgentDojo: an assistant with tools whose results may hold injected instructions."""
