"""What the doors cost: whole processes, warm cache, median of five, beside a bare interpreter.

python benchmarks/doors.py
"""

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import tsguard": ["-c", "import tsguard"],
    "tsguard --help": ["-m", "tsguard", "--help"],
    "pytest --version": ["-m", "pytest", "--version", "-p", "no:tsguard"],
    "pytest --version with the plugin": ["-m", "pytest", "--version"],
}


def seconds(arguments):
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


def main():
    for arguments in COMMANDS.values():
        seconds(arguments)
    for name, arguments in COMMANDS.items():
        print(f"{name:<36} {statistics.median(seconds(arguments) for _ in range(5)):.3f} s")


if __name__ == "__main__":
    main()
