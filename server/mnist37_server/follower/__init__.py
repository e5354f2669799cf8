"""A copy of another server's model: it is fed by Follow, and answers reads."""
