"""A service that trains the live model again and again, and goes on with what was interrupted.

python examples/trainer.py [HOST:PORT [EPOCHS [PAUSE]]]     epochs of a run, seconds between two
"""

import sys
import time

from mnist37_client import Aborted, AlreadyExists, Client

NAME = "trainer-"  # of the runs, followed by their seed


def seed_to_go_on_with(client: Client) -> int | None:
    """Of our newest run, unless it came to its end: whoever followed it may have been killed."""
    for run in client.runs():
        if (run.request_id or "").startswith(NAME):
            return None if run.state == "finished" else run.seed
    return None


def main(address: str = "127.0.0.1:50051", epochs: str = "20", pause: str = "60") -> None:
    """Trains for ever. The client lives through restarts of the server by itself."""
    with Client(address) as client:
        seed = seed_to_go_on_with(client)
        while True:
            seed = seed or time.time_ns()
            try:
                last = client.train(int(epochs), seed=seed, request_id=f"{NAME}{seed}").wait()
                print(f"version {last.version}: accuracy {last.valid_accuracy:.4f}", flush=True)
            except (Aborted, AlreadyExists) as error:  # others wrote; or it had other epochs
                print(f"begins anew: {error}", flush=True)
            seed = None
            time.sleep(float(pause))


if __name__ == "__main__":
    main(*sys.argv[1:])
