"""One whole run: its stages, its checks before the start, its folder and its logs."""
