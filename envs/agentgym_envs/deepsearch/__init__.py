"""Questions that take several searches, over an encyclopaedia made for the purpose."""
