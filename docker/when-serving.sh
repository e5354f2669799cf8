#!/bin/sh
# Runs a command as soon as the server at MNIST37_ADDRESS says that it is serving.
until mnist37 health 2>/dev/null; do
    echo "waiting for $MNIST37_ADDRESS"
    sleep 2
done
exec "$@"
