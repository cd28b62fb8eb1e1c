"""Mathematics with a Python tool: generated problems, or files of known ones."""
