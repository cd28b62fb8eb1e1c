"""ALFWorld in Python: the text game of household tasks, generated or from official game files."""
