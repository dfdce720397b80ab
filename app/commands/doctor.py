"""`djsb doctor`: what this machine has, what each task and OP lacks here, and the command that gets it."""

from __future__ import annotations

import os
import platform
import re
import shutil
from pathlib import Path

from app.text.printable import say
from engine.base.amounts import format_bytes
from engine.base.errors import DjsbError
from engine.base.installed import extras, getting, version_of, wrong
from engine.journal.store import Row

LEADING = ("torch", "transformers", "py-data-juicer", "diffusers", "peft", "textual", "ray")
PROGRAMS = {
    "nvidia-smi": "GPUs are found by it", "java": "the caption task's METEOR; without it, it is left out",
    "sbatch": "executor: slurm submits by it",
}  # fmt: skip
LITTLE = 5 << 30  # bytes of free disk below which a study soon stands still
KEYS = re.compile(r"[A-Z0-9_]*API_KEY")


def doctor(folder: Path) -> Row:
    """The machine, its packages, and what is missing with its remedy. Nothing is fetched, and no study is needed.

    folder: on the disk where studies are to lie. Problems keep djsb from working; what is missing leaves out a part.
    """
    found: Row = {"problems": [], "versions": _versions(), "devices": [], "extras": _extras()}
    found["problems"] += [f"{wrong}; install djsb anew: pip install --force-reinstall djsb" for wrong in wrong()]
    found["devices"] = _devices(found["problems"])
    found["machine"] = _machine(folder, found["problems"])
    found["programs"] = {name: shutil.which(name) for name in PROGRAMS}
    found["keys"] = sorted(name for name in os.environ if KEYS.fullmatch(name))
    found["tasks"] = _tasks(found["extras"])
    found["ops"] = _ops()
    found["models"] = _models()
    return found


def _versions() -> dict[str, str | None]:
    named = {"djsb": version_of("djsb"), "python": platform.python_version()}
    return named | {name: version_of(name) for name in LEADING}


def _extras() -> dict[str, Row]:
    """Of each extra: what it lacks, and the command that gets it. What the engine lacks is said once, by its own."""
    engine = wrong("engine")
    found = {}
    for name in extras():
        lacks = wrong(name)
        own = [w for w in lacks if w not in engine or name == "engine"]
        found[name] = {"lacks": own if own == lacks else ["the engine is missing", *own], "get": getting(name)}
    return found


def _devices(problems: list[str]) -> list[Row]:
    """The GPUs, as nvidia-smi and torch see them."""
    from engine.base.gpus import gpus

    try:
        listed = gpus()
    except DjsbError as error:
        problems.append(str(error))
        return []
    if not listed:
        return []
    import torch

    if not torch.cuda.is_available():
        kind = "was built without CUDA" if torch.version.cuda is None else f"of CUDA {torch.version.cuda} sees none"
        problems.append(
            f"nvidia-smi lists {len(listed)} GPU(s), and torch {torch.__version__} {kind}; install the torch of your "
            "driver's CUDA (pytorch.org/get-started), or set CUDA_VISIBLE_DEVICES to nothing to train on the CPU"
        )
        return [{"gpu": name} for name in listed]
    found = []
    for number, name in enumerate(listed):
        free, memory = torch.cuda.mem_get_info(number)
        capability = ".".join(map(str, torch.cuda.get_device_capability(number)))
        kind = torch.cuda.get_device_name(number)
        found.append({"gpu": name, "name": kind, "capability": capability, "memory": memory, "free": free})
    return found


def _machine(folder: Path, problems: list[str]) -> Row:
    import psutil

    there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    if free < LITTLE:
        problems.append(f"{there} has {format_bytes(free)} free; free some space, or make the study elsewhere")
    if not os.access(there, os.W_OK):
        problems.append(f"{there} cannot be written; make the study elsewhere")
    memory = psutil.virtual_memory()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "system": platform.platform(), "cores": cores, "memory": memory.total, "memory_free": memory.available,
        "folder": str(there), "disk_free": free, "temporary": os.environ.get("TMPDIR", "/tmp"),
    }  # fmt: skip


def _tasks(parts: dict[str, Row]) -> list[Row]:
    """Of each task, as it is installed: what it lacks, and the command that gets it."""
    from engine.tasks.registry import task_named, task_names

    found = []
    for name in task_names():
        needs = {
            extra: parts[extra]["lacks"] for extra in task_named(name).traits.extras or ("engine",) if extra in parts
        }
        lacks = list(dict.fromkeys(w for lacking in needs.values() for w in lacking))
        get = getting(",".join(extra for extra, lacking in needs.items() if lacking)) if lacks else None
        found.append({"task": name, "lacks": lacks, "get": get})
    return found


def _ops() -> Row:
    """Which OPs can run with nothing set in a study, and what each of the others needs."""
    from engine.data.ops.needs import missing_needs
    from engine.data.ops.table import OPS

    reasons = {name: missing_needs(name, {}) for name in OPS}
    lacking = [{"op": name, "reason": reason} for name, reason in sorted(reasons.items()) if reason]
    return {"ready": len(reasons) - len(lacking), "lacking": lacking}


def _models() -> Row:
    """The hub's local cache, and the models in it. Names alone are read."""
    from engine.data.ops import hub

    folder = hub.cache()
    named = sorted(p.name.removeprefix("models--").replace("--", "/") for p in folder.glob("models--*"))
    return {"cache": str(folder), "models": named}


def show_doctor(found: Row) -> None:
    """As people read it."""
    say("versions  " + ", ".join(f"{name} {number}" for name, number in found["versions"].items() if number))
    for device in found["devices"]:
        about = f"{device['name']}, capability {device['capability']}" if "name" in device else "not seen by torch"
        room = f", {format_bytes(device['free'])} of {format_bytes(device['memory'])} free" if "name" in device else ""
        say(f"gpu {device['gpu']}     {about}{room}")
    machine = found["machine"]
    if not found["devices"]:
        say("device    no GPU; trials run on CPU cores")
    say(f"machine   {machine['system']}, {machine['cores']} cores, {format_bytes(machine['memory'])} of memory")
    say(f"disk      {format_bytes(machine['disk_free'])} free at {machine['folder']}")
    for name, path in found["programs"].items():
        say(f"program   {name}: {path or 'not there'} ({PROGRAMS[name]})")
    say(f"keys      {', '.join(found['keys']) or 'none in the environment'} (agent.model takes OPENAI_API_KEY)")
    parts = [(f"task      {t['task']}", t) for t in found["tasks"]]
    for name, part in [*parts, *((f"extra     {name}", extra) for name, extra in found["extras"].items())]:
        say(f"{name}: " + (f"{'; '.join(part['lacks'])}; {part['get']}" if part["lacks"] else "ready"))
    say(f"OPs       {found['ops']['ready']} can run as they are; each of the others needs something:")
    for op in found["ops"]["lacking"]:
        say(f"          {op['op']}: {op['reason']}")
    models = found["models"]
    say(f"models    {models['cache']}: {', '.join(models['models']) or 'none'}")
    for problem in found["problems"]:
        say(f"PROBLEM   {problem}")
