"""tau2-bench: customer service by policy and tools, in telecom, retail and airline."""
