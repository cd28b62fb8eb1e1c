"""Search over HTTP by Search-R1's protocol: ``POST /retrieve``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agentgym.errors import EnvError
from agentgym_envs.deepsearch.corpora import split_title
from agentgym_envs.deepsearch.sources import Hit, Page, nfc, split

if TYPE_CHECKING:
    from agentgym.tools.http import HttpClient


class RemoteCorpus:
    """A corpus behind HTTP; a page is found by searching for its title.

    Source:
        Search-R1 (arXiv:2503.09516) and its retrieval server: requests
        have ``queries``, ``topk`` and ``return_scores``, responses ``result``: per query a list of
        ``{"document": {"id", "contents"}, "score"}``, or of bare documents.
    """

    snippet = 500

    def __init__(self, url: str, web: HttpClient | None = None) -> None:
        """No request is sent yet.

        Args:
            url: Such as ``http://127.0.0.1:8000/retrieve``; an address without a path gets
                ``/retrieve``.
            web: The client; its cache may record and replay responses.

        Raises:
            MissingExtra: httpx is not installed.
        """
        from agentgym.tools.http import HttpClient

        parts = urlsplit(url)
        # The address that `agentgym serve retrieve` prints has no path.
        self.url = url.rstrip("/") + "/retrieve" if parts.path in ("", "/") else url
        self.web = web or HttpClient()

    def search(self, query: str, count: int) -> list[Hit]:
        """The best documents in the order of the server.

        Raises:
            EnvError: The server is unreachable, or violates the protocol.
            EnvTimeout: No response in time.
        """
        asked = {"queries": [nfc(query)], "topk": count, "return_scores": True}
        answer = self.web.post(self.url, asked)
        if answer.status != 200:
            raise EnvError(f"{self.url} answered {answer.status}: {answer.text[:100]!r}")
        try:
            (found,) = answer.json()["result"]
            return [_hit(each) for each in found][:count]
        except (AttributeError, KeyError, TypeError, ValueError) as problem:
            raise EnvError(
                f"{self.url} answered {answer.text[:100]!r}, expected an object with one list of "
                f"documents under 'result' ({problem!r:.80})"
            ) from None

    def page(self, title: str) -> Page | None:
        """All documents with this title among the ten best hits for it."""
        found = self.search(title, 10)
        texts = [hit.text for hit in found if nfc(hit.title) == nfc(title)]
        return Page(title, tuple(s for text in texts for s in split(text))) if texts else None


@cache
def open_remote(url: str) -> RemoteCorpus:
    """One per process, so that connections are reused."""
    return RemoteCorpus(url)


def _hit(found: Mapping[str, Any]) -> Hit:
    scored = found.get("document")
    document: Mapping[str, Any] = found if scored is None else scored
    title, text = split_title(document["contents"])
    return Hit(str(document.get("id", title)), title, text, float(found.get("score", 0.0)))
