"""Where something is measured: the machine, the disk, the tree; nothing that names one or its user."""

import multiprocessing
import os
import subprocess
import time

# A loop that only looks at the clock takes a thousandth of this for a pass.
STILL_NS = 200_000


def first_field(path, name):
    try:
        with open(path) as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key.strip() == name:
                    return value.strip()
    except OSError:
        pass
    return None


def output_of(*command, **options):
    """What a program prints, or None where it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, **options)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def disk_of(folder):
    """The file system, and what is under it as the kernel tells: rotating, its cache, its kind."""
    facts = {"file_system": output_of("df", "--output=fstype", folder)}
    if facts["file_system"]:
        facts["file_system"] = facts["file_system"].splitlines()[-1].strip()
    device = os.stat(folder).st_dev
    block = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"
    if os.path.isdir(block):
        # A partition has its queue one folder up, in the whole device's.
        whole = block if os.path.isdir(f"{block}/queue") else f"{block}/.."
        read = lambda name: _line(f"{whole}/queue/{name}")
        facts["device"] = os.path.basename(os.path.realpath(whole)).rstrip("0123456789")
        facts["rotational"] = read("rotational") == "1"
        facts["write_cache"] = read("write_cache")
    return facts


def _line(path):
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return None


def _gaps(cpu, seconds):
    """How long a busy loop stood still: in all, and at longest, ns."""
    os.sched_setaffinity(0, {cpu})
    begun = last = time.perf_counter_ns()
    still = longest = 0
    while last < begun + seconds * 1_000_000_000:
        now = time.perf_counter_ns()
        gap, last = now - last, now
        if gap > STILL_NS:
            still, longest = still + gap, max(longest, gap)
    return still, longest


def stands_still(seconds):
    """What the machine does to programs that keep CPUs 0 and 1 busy: no latency over these shares of
    the time can be shorter than that."""
    with multiprocessing.Pool(2) as pool:
        of = pool.starmap(_gaps, [(cpu, seconds) for cpu in (0, 1)], chunksize=1)
    return {
        "share": sum(still for still, _ in of) / (2e9 * seconds),
        "longest_us": max(longest for _, longest in of) / 1e3,
    }


def record(root, folder):
    """All of it, as JSON has it."""
    cpus = sorted(os.sched_getaffinity(0))
    kib = first_field("/proc/meminfo", "MemTotal")
    commit = output_of("git", "-C", root, "rev-parse", "--short", "HEAD")
    changed = output_of("git", "-C", root, "status", "--porcelain", "--untracked-files=no")
    redis = output_of("redis-server", "--version")
    return {
        "time_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit or "unknown",
        "has_uncommitted_changes": bool(changed),
        "cpu": first_field("/proc/cpuinfo", "model name") or "unknown",
        "cpus": len(cpus),
        "kernel": os.uname().release,
        "memory_bytes": int(kib.split()[0]) * 1024 if kib else None,
        "governor": _line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "is_virtual": " hypervisor" in (first_field("/proc/cpuinfo", "flags") or ""),
        "disk": disk_of(folder),
        "load_average_before": list(os.getloadavg()),
        "redis": redis.split(" sha=")[0] if redis else None,
        "rustc": output_of("rustc", "--version"),
    }
