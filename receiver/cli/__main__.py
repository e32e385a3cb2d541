"""`python -m receiver.cli`: the same as `ringback`."""

from receiver.cli import main

if __name__ == "__main__":
    main()
