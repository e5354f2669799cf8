"""A service that reads images as lines of hex, and answers each with 3 or 7 by the live model.

python examples/predict_service.py [HOST:PORT [REPLICAS]] < images.txt

REPLICAS: the followers of the server that answer, IP:PORT,IP:PORT or dns:///NAME:PORT
"""

import asyncio
import sys

import numpy as np
from mnist37_client import AsyncClient, InvalidInput


async def answer(client: AsyncClient, line: str) -> str:
    """Return the digit, its probability of a 3 and the version for one image, 784 bytes in hex."""
    try:
        prediction = await client.predict(np.frombuffer(bytes.fromhex(line), np.uint8))
    except (InvalidInput, ValueError) as error:
        return f"error: {error}"
    return f"{prediction.digits[0]} {prediction.probabilities[0]:.4f} {prediction.version}"


async def main(address: str = "127.0.0.1:50051", replicas: str = "") -> None:
    """Predict all lines of stdin concurrently, and print the answers in the order of the lines."""
    async with AsyncClient(address, replicas=replicas or None) as client:
        for reply in await asyncio.gather(*(answer(client, line) for line in sys.stdin)):
            print(reply)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
