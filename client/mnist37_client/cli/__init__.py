"""The command line, `mnist37`."""
