"""A service that trains the live model repeatedly, and resumes a run that was interrupted.

python examples/trainer.py [HOST:PORT [EPOCHS [PAUSE]]]     PAUSE: seconds between two runs
"""

import sys
import time

from mnist37_client import Aborted, AlreadyExists, Client

REQUEST_ID_PREFIX = "trainer-"  # of the runs; the seed follows


def find_unfinished_seed(client: Client) -> int | None:
    """Return the seed of this service's newest run if it is not finished, else None."""
    for run in client.runs():
        if (run.request_id or "").startswith(REQUEST_ID_PREFIX):
            return None if run.state == "finished" else run.seed
    return None


def main(address: str = "127.0.0.1:50051", epochs: str = "20", pause: str = "60") -> None:
    """Train until the process ends; the client retries while the server restarts."""
    with Client(address) as client:
        seed = find_unfinished_seed(client)
        while True:
            seed = seed or time.time_ns()
            try:
                request_id = f"{REQUEST_ID_PREFIX}{seed}"
                last = client.train(int(epochs), seed=seed, request_id=request_id).wait()
                print(f"version {last.version}: accuracy {last.valid_accuracy:.4f}", flush=True)
            except (Aborted, AlreadyExists) as error:  # another write came, or other EPOCHS
                print(f"begins anew: {error}", flush=True)
            seed = None
            time.sleep(float(pause))


if __name__ == "__main__":
    main(*sys.argv[1:])
