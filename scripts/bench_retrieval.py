"""What searching costs, in process and over HTTP: memory, latency, queries per second.

    .venv/bin/python scripts/bench_retrieval.py [--pages 100000] [--queries 400] [--callers 8]

The pages are those of the made encyclopaedia, written to a file as wiki-18 keeps it; the queries
are its questions of two hops. Over HTTP they go through our client to `agentgym serve retrieve` of
the same file. Latency is real time; processor time of both sides is reported beside it, so that a
busy machine shows. Memory is Pss: pages shared with other processes count by their share.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from statistics import median, quantiles

from memory import megabytes

from agentgym.errors import EnvError
from agentgym_envs.deepsearch.corpora import open_corpus
from agentgym_envs.deepsearch.knowledge import make_knowledge
from agentgym_envs.deepsearch.pages import Encyclopaedia
from agentgym_envs.deepsearch.questions import ask
from agentgym_envs.deepsearch.remote import RemoteCorpus
from agentgym_envs.deepsearch.sources import Source


def spent(process: int | str = "self") -> float:
    """Processor seconds of a process."""
    ticks = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def write(pages: int, path: Path, count: int) -> list[str]:
    """The pages, as a file; some questions about them."""
    book = Encyclopaedia(make_knowledge(pages, 0))
    with path.open("w") as file:
        for number, page in enumerate(book.pages.values()):
            contents = f'"{page.title}"\n' + "\n\n".join(page.sections)
            file.write(json.dumps({"id": str(number), "contents": contents}) + "\n")
    return [ask(book.knowledge, number, 2).text for number in range(count)]


def measure(name: str, source: Source, queries: Sequence[str], callers: int, server: int) -> None:
    """Print how searches of some callers at once go."""

    def once(query: str) -> float:
        start = time.perf_counter()
        assert len(source.search(query, 3)) == 3
        return 1000 * (time.perf_counter() - start)

    processes: list[int | str] = ["self", server] if server else ["self"]
    before, start = sum(map(spent, processes)), time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        took = list(pool.map(once, queries))
    wall = time.perf_counter() - start
    busy = 1000 * (sum(map(spent, processes)) - before) / len(took)
    print(
        f"{name:32}{len(took) / wall:8.0f} queries/s {median(took):8.2f} ms median "
        f"{quantiles(took, n=20)[-1]:8.2f} ms 95 % {busy:8.2f} ms processor"
    )


def serve(path: Path) -> tuple[subprocess.Popen[bytes], RemoteCorpus]:
    """Our server of the file, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["-m", "agentgym.cli", "serve", "retrieve", "--port", str(port)]
    words += ["--env-args", "corpus", str(path)]
    server = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL)
    remote = RemoteCorpus(f"http://127.0.0.1:{port}/retrieve")
    for _ in range(60):
        try:
            remote.search("town", 1)
            return server, remote
        except EnvError:
            time.sleep(1)
    server.kill()
    raise SystemExit("the server does not start")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pages", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=400)
    parser.add_argument("--callers", type=int, default=8)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AGENTGYM_CACHE"] = f"{folder}/cache"
        path = Path(folder, "pages.jsonl")
        # In its own process, so that its memory does not count as ours.
        with ProcessPoolExecutor(1) as pool:
            queries = pool.submit(write, wanted.pages, path, wanted.queries).result()
        print(f"{wanted.pages:,} pages, {path.stat().st_size / 2**20:.0f} MB of JSON lines")
        before, start = megabytes(), spent()
        corpus = open_corpus(str(path))
        files = [file for file in Path(folder, "cache").rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in files) / 2**20
        print(f"indexed in {spent() - start:.1f} s of processor; index {size:.0f} MB on disk")
        measure("in process, one caller", corpus, queries, 1, 0)
        measure(f"in process, {wanted.callers} callers", corpus, queries, wanted.callers, 0)
        print(f"memory: {megabytes() - before:.0f} MB more than before it was opened")
        server, remote = serve(path)
        try:
            measure("over HTTP, one caller", remote, queries, 1, server.pid)
            measure(
                f"over HTTP, {wanted.callers} callers", remote, queries, wanted.callers, server.pid
            )
            print(f"memory of the server: {megabytes(server.pid):.0f} MB")
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()
