"""Runs what the tests outside a guest ask for, each request in a thread of its own.

A request is a line with a JSON object: {"id": 1, "script": "…", "seconds": 60}, a script for bash, or
{"id": 2} to read the clock of the events. So is the answer: the id with the script's status (null when
it took too long), stdout and stderr, or with CLOCK_MONOTONIC in ns.
"""

import glob
import json
import os
import signal
import subprocess
import threading
import time

# The first number counts virtio devices.
[PATH] = glob.glob("/dev/vport*p1")
PORT = open(PATH, "r+b", buffering=0)
WRITING = threading.Lock()


def answer(request):
    if "script" not in request:
        return {"monotonic_ns": time.monotonic_ns()}
    process = subprocess.Popen(
        ["bash", "-c", request["script"]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    status = None
    try:
        stdout, stderr = process.communicate(timeout=request["seconds"])
        status = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
    text = {"stdout": stdout, "stderr": stderr}
    return {"status": status} | {name: value.decode(errors="replace") for name, value in text.items()}


def serve(line):
    request = json.loads(line)
    line = json.dumps({"id": request["id"]} | answer(request)).encode() + b"\n"
    with WRITING:
        while line:
            line = line[PORT.write(line) :]


rest = b""
while True:
    read = PORT.read(65536)
    if not read:
        # Nobody is connected.
        time.sleep(0.05)
        continue
    *lines, rest = (rest + read).split(b"\n")
    for line in lines:
        threading.Thread(target=serve, args=(line,)).start()
