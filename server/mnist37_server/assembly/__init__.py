"""The two kinds of server, put together from their parts: an owner of a model, and a follower."""
