"""A run on a Ray cluster: the same episodes, metrics and weights as in one process."""

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from agentgym import errors, train
from agentgym.cli import main
from agentgym.cli.training import parse_plan
from agentgym.cluster.players import Losses
from agentgym.cluster.weights import pack, unpack
from agentgym.env import registry
from agentgym.experiment.cluster import losses_before
from agentgym.experiment.plan import Plan, load_plan
from agentgym.experiment.run_folder import RunFolder
from agentgym.settings import ClusterSettings

ROOT = Path(__file__).parent.parent
# Sizes at which the local engine is batch-invariant on every CPU tried.
SMALL = (  # noqa: SIM905
    "--world hotter --env-args high 8 --seed 3 --tasks-per-step 4 --save-every 1 "
    "--panel.tasks 2 --panel.episodes 2 --rollout.max-completion-tokens 8 "
    "--rollout.max-context-tokens 1024 --rollout.max-turns 6 --optimizer.learning-rate 4e-4"
).split()
MODEL = (  # noqa: SIM905
    "--scratch.hidden-size 64 --scratch.num-heads 4 --scratch.num-kv-heads 2 "
    "--scratch.intermediate-size 128 --imitation.demos-per-task 1 --imitation.max-steps 80 "
    "--imitation.batch-size 8 --imitation.until-success 1"
).split()
OF_ITS_OWN = re.compile(r"^time/|^cluster/|tokens_per_second")


def environment() -> dict[str, str]:
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "envs", ROOT / "trainers")))
    # Ray gives each process as many threads as cores were reserved for it.
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}


EXAMPLES = ROOT / "examples" / "cluster"


def run(out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agentgym", "train", "epo", *SMALL, "--out", str(out), *words],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def turns(record: dict) -> list[tuple]:
    return [(turn["action"], turn["observation"]) for turn in record["turns"]]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """Weights of a checkpoint; several ranks write several files."""
    return {n: w for file in folder.glob("*.safetensors") for n, w in load_file(file).items()}


def same_run(one: Path, other: Path, least: float) -> None:
    """Sums of other orders differ by at most ``least`` of a weight, and as much of a metric."""
    mine, theirs = (lines(run / "episodes.jsonl") for run in (one, other))
    assert list(map(turns, mine)) == list(map(turns, theirs))
    for mine, theirs in zip(*(lines(run / "metrics.jsonl") for run in (one, other)), strict=True):
        names = [name for name in mine if not OF_ITS_OWN.search(name)]
        expected = pytest.approx([theirs[n] for n in names], abs=least, rel=least, nan_ok=True)
        assert [mine[n] for n in names] == expected
    weights = [weights_of(run / "checkpoints" / "final") for run in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], rtol=0, atol=least)
    for name in ("before", "after"):
        panels = [lines(run / "eval" / f"{name}.jsonl")[1:] for run in (one, other)]
        played = [sorted((r["task"], r["sample"], turns(r)) for r in panel) for panel in panels]
        assert played[0] == played[1] and played[0]


@pytest.fixture(scope="module")
def warm(tmp_path_factory) -> Path:
    """A model that knows the actions of the world."""
    made = tmp_path_factory.mktemp("made") / "run"
    main(["train", "epo", *SMALL, *MODEL, "--steps", "0", "--out", str(made)])
    return made / "checkpoints" / "warm"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("kind", "least"), [("players", 1e-7), ("trainers", 1e-4)])
def test_a_cluster_trains_as_one_process_does(kind, least, warm, tmp_path):
    pytest.importorskip("ray")
    alone, placed = tmp_path / "alone", tmp_path / "placed"
    words = ["--model", str(warm), "--steps", "2"]
    main(["train", "epo", *SMALL, *words, "--out", str(alone)])
    done = run(placed, *words, "--cluster.address", "local", f"--cluster.{kind}", "2")
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = lines(placed / "metrics.jsonl")
    assert [step["cluster/deaths"] for step in metrics] == [0, 0]
    assert any(step["episode/reward"] for step in metrics), "worlds are stepped"
    same_run(alone, placed, least)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_weights_by_broadcast_are_those_through_the_store(warm, tmp_path):
    """Byte by byte, with players that have an engine of their own and with engines."""
    pytest.importorskip("ray")
    runs = {}
    for sync, engines in (("store", 2), ("broadcast", 2), ("broadcast", 0)):
        runs[sync, engines] = tmp_path / f"{sync}-{engines}"
        words = ["--model", str(warm), "--steps", "2", "--cluster.sync", sync]
        words += ["--cluster.address", "local", "--cluster.players", "2"]
        done = run(runs[sync, engines], *words, "--cluster.engines", str(engines))
        assert done.returncode == 0, done.stderr[-3000:]
        assert "broke" not in done.stdout + done.stderr
    first, *others = runs.values()
    for other in others:
        same_run(first, other, 0.0)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["one-step-off", "async"])
def test_rollout_and_update_overlap_on_a_cluster(kind, warm, tmp_path):
    """Which weights sample depends on the clock; their age and what is learned from do not."""
    pytest.importorskip("ray")
    words = ["--model", str(warm), "--steps", "3", "--schedule.kind", kind, "--cluster.players"]
    done = run(tmp_path / "run", *words, "2", "--cluster.address", "local", "--cluster.engines=1")
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = lines(tmp_path / "run" / "metrics.jsonl")
    assert len(metrics) == 3 and max(step["policy/staleness_max"] for step in metrics) == 1
    episodes = lines(tmp_path / "run" / "episodes.jsonl")
    assert len(episodes) == 3 * 4 * 8
    assert len({(each["task"], each["sample"]) for each in episodes}) >= 32


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "fault", ["world", "player", "engine", "broadcast", "trainer", "node", "head"]
)
def test_what_is_killed_changes_no_episode_no_metric_and_no_weight(fault):
    pytest.importorskip("ray")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "cluster_faults.py", "--fault", fault],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert f"{fault}: same episodes, metrics and weights" in done.stdout


FAILURE = """
from agentgym.cluster.connect import connect
from agentgym.cluster.ranks import Ranks
from agentgym.errors import AgentGymError
from agentgym.settings import ClusterSettings
from agentgym.utils.progress import Display

def work(display):
    import os, time
    from agentgym.errors import ConfigError
    if os.environ["RANK"] == "1":
        raise ConfigError("rank 1 refuses")
    time.sleep(600)

settings = ClusterSettings(address="local", trainers=2)
connect(settings)
try:
    Ranks(settings).run(work, Display())
except AgentGymError as problem:
    print(problem)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_error_of_any_rank_ends_the_run_with_its_line():
    pytest.importorskip("ray")
    done = subprocess.run(
        [sys.executable, "-c", FAILURE],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "rank 1 refuses", done.stderr[-2000:]


INTRUDER = """
import ray, sys
try:
    ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
except ConnectionError:
    sys.exit(7)
"""
OWNER = """
import os, subprocess, sys
from agentgym.cluster.connect import connect
from agentgym.settings import ClusterSettings
connect(ClusterSettings(address="local"))
import ray
address = ray.get_runtime_context().gcs_address
for token in (os.environ["RAY_AUTH_TOKEN"], "0" * 64):
    known = os.environ | {"RAY_AUTH_TOKEN": token}
    print(subprocess.run([sys.executable, "-c", sys.argv[1], address], env=known).returncode)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_cluster_that_a_run_starts_answers_only_who_knows_its_token():
    pytest.importorskip("ray")
    done = subprocess.run(
        [sys.executable, "-c", OWNER, INTRUDER],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["0", "7"], done.stderr[-2000:]


def test_weights_of_every_type_survive_the_way():
    shared = torch.randn(3, 4)
    sent = {"a": shared, "b": shared, "half": torch.randn(5).bfloat16(), "n": torch.tensor(7)}
    packed = pack(sent)
    assert packed["a"] is packed["b"]
    for name, weight in unpack(packed).items():
        assert weight.dtype == sent[name].dtype and torch.equal(weight, sent[name])


def test_losses_are_counted_over_restarts(tmp_path):
    folder = RunFolder(tmp_path)
    assert losses_before(folder, step=0) == Losses()
    folder.losses.write_text(json.dumps(asdict(Losses(replayed=2, deaths=1, repeated_steps=4))))
    folder.metrics.write_text("{}\n" * 7)
    found = losses_before(folder, step=5)
    assert found == Losses(replayed=2, deaths=1, restarts=1, repeated_steps=6)


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(errors.MissingExtra, match=r'pip install "agentic-gym\[ray\]"'):
        train(env="hotter", out=tmp_path / "run", cluster={"address": "local"}, progress=False)
    assert not (tmp_path / "run").exists()


def test_objects_cannot_be_given_to_other_machines(tmp_path):
    def add(a: int, b: int) -> int:
        """Add.

        Args:
            a: One.
            b: Other.
        """
        return a + b

    with pytest.raises(errors.ConfigError, match="cannot have the Python object"):
        train(env="hotter", tools=[add], out=tmp_path / "run", cluster={"address": "local"})


def test_what_a_cluster_starts_itself_is_refused(tmp_path, monkeypatch):
    placed = {"address": "local"}
    with pytest.raises(errors.ConfigError, match="a cluster starts its own engines"):
        train(env="hotter", server="http://a", out=tmp_path / "run", cluster=placed)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(errors.ConfigError, match="leave `torchrun` out"):
        train(env="hotter", out=tmp_path / "run", cluster=placed)


@pytest.mark.parametrize(("name", "low"), [("trainers", 1), ("engines", 0), ("players", 1)])
def test_sizes_have_a_least_value(name, low):
    assert getattr(ClusterSettings(**{name: low}), name) == low
    with pytest.raises(errors.ImpossibleValue, match=f"cluster.{name} is {low - 1}"):
        ClusterSettings(**{name: low - 1})


# ---- the files of examples/cluster ---------------------------------------------------------------


def checked(command: str) -> Plan:
    """The plan of a command line, by the parser of the command line."""
    words = shlex.split(re.sub(r"\\\n", " ", command))
    assert words[:2] == ["agentgym", "train"]
    named, file = words[2], registry.recipe(registry.full_id(words[words.index("--world") + 1]))
    rest = [word for n, word in enumerate(words[3:], 3) if "--world" not in words[n - 1 : n + 1]]
    return parse_plan(load_plan(file, named, model="a/model"), rest).plan


def test_the_job_for_kubernetes_starts_a_run_with_room_for_it():
    job = yaml.safe_load((EXAMPLES / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    plan = checked(job["spec"]["entrypoint"])
    wanted = plan.experiment.cluster
    groups = {each["groupName"]: each for each in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]}
    limits = {
        name: each["template"]["spec"]["containers"][0]["resources"]["limits"]
        for name, each in groups.items()
    }
    gpus = groups["gpu"]["replicas"] * limits["gpu"]["nvidia.com/gpu"]
    assert gpus == wanted.trainers + wanted.engines
    assert int(limits["cpu"]["cpu"]) >= wanted.players * plan.experiment.rollout.workers
    assert plan.algorithm == "epo" and wanted.address == "auto"


def test_the_script_for_slurm_is_valid_and_its_commands_exist():
    file = EXAMPLES / "slurm.sbatch"
    assert subprocess.run(["bash", "-n", file], check=False).returncode == 0
    text = file.read_text()
    found = re.search(r"agentgym train epo(?:.*\\\n)*.*", text)
    assert found is not None
    words = found[0].replace('"$address:$port"', "head:6379").replace('"$run"', "run")
    assert checked(words).experiment.cluster.address == "head:6379"
    nodes, gpus = (int(re.search(rf"--{n}=(\d+)", text)[1]) for n in ("nodes", "gpus-per-node"))
    cluster = checked(words).experiment.cluster
    assert nodes * gpus == cluster.trainers + cluster.engines
