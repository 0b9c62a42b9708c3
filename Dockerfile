# The whole environment in one image: `docker build --build-arg STACK=cuda -t r1zero .` (STACK=cpu is the default).
# A GPU needs driver 580 or newer and NVIDIA's container toolkit on the host: `docker run --gpus all --ipc=host r1zero doctor`.
FROM python:3.11-slim-bookworm

ARG STACK=cpu

# gcc: Triton compiles kernels on a GPU. bubblewrap: the sandbox for code that a model writes.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bubblewrap gcc git libc6-dev libnuma1 make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /r1zero
COPY . .
RUN PIP_NO_CACHE_DIR=1 make setup STACK=${STACK}

ENV PATH=/r1zero/.venv/bin:${PATH}
WORKDIR /work
ENTRYPOINT ["r1zero"]
CMD ["--help"]
