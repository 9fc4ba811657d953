"""`python -m tsguard` is `tsguard`."""

from tsguard.cli import main

main()
