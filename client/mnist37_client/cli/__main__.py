"""python -m mnist37_client.cli: the command line, as `mnist37` starts it."""

from mnist37_client.cli.main import main

if __name__ == "__main__":
    main()
