"""Try to log in: guess.py ADDRESS TIMES. Succeeds if the host offers password logins at all."""

import json
import subprocess
import sys
import time

began = time.time()
address, times = sys.argv[1], int(sys.argv[2])
options = ["-o", "PreferredAuthentications=none", "-o", "StrictHostKeyChecking=no"]
options += ["-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=2", "-o", "BatchMode=yes"]
said = [
    subprocess.run(
        ["ssh", "-F", "none", *options, f"root@{address}", "true"],
        capture_output=True, text=True, check=False,
    ).stderr.strip().rpartition("\n")[2]
    for _ in range(times)
]  # fmt: skip
taken = sum("password" in line for line in said)
saw = f"{taken} of {times} would take a password; last: {said[-1]}"
print(json.dumps({"began": began, "succeeded": bool(taken), "saw": saw}))
