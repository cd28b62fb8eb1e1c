"""Real TextWorld games: generated, cached, and played in the real interpreter."""
