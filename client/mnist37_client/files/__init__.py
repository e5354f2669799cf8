"""Files: read within bounds, read as secrets, or written whole."""
