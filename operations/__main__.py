"""`python -m operations`, which `./paceline` and `make` run."""

from operations.main import main

main()
