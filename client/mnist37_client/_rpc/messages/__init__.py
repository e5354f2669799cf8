"""The messages of requests, made of arguments, and the checked results in those of answers."""
