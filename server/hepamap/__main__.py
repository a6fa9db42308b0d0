"""`python -m hepamap` is the command `hepamap`."""

from hepamap.cli import main

if __name__ == "__main__":
    main()
