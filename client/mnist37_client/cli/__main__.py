"""Entry point of `python -m mnist37_client.cli`, which does the same as `mnist37`."""

from mnist37_client.cli.main import main

if __name__ == "__main__":
    main()
