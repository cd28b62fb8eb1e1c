"""A real browser, Chromium, as a place where an environment's actions happen.

One browser per process has a window of its own for every episode: cookies and storage are not
shared. It is driven over a pipe, so no port is open, and it ends with its process. Pages reach
loopback addresses and the hosts that are allowed, nothing else. The time of a page passes only
when an action asks for it.
"""

from agentgym.browser.chromium import Browser, find_chromium, shared_browser
from agentgym.browser.env import BrowserEnv
from agentgym.browser.tab import Tab

__all__ = ["Browser", "BrowserEnv", "Tab", "find_chromium", "shared_browser"]
