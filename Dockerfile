# CPU image: docker build -t agentgym .
#   PyTorch publishes CPU builds in an index of its own; name it to save gigabytes:
#   docker build --build-arg PIP_EXTRA_INDEX_URL=URL -t agentgym .
# CUDA image: docker build --build-arg DEVICE=cuda -t agentgym:cuda .
#   It needs no other base image: PyTorch's default wheels bring the CUDA libraries, and the host
#   brings the driver (docker run --gpus all).
FROM python:3.12-slim-bookworm
ARG DEVICE=cpu
ARG PIP_EXTRA_INDEX_URL=

RUN apt-get update \
 && apt-get install -y --no-install-recommends build-essential default-jre-headless git \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/agentgym
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY agentgym agentgym
COPY envs envs
COPY trainers trainers

RUN if [ "$DEVICE" = cuda ]; then \
      pip install --no-cache-dir "torch>=2.11,<2.16" "vllm>=0.26,<0.34"; \
    else \
      pip install --no-cache-dir torch==2.13.0+cpu || pip install --no-cache-dir "torch>=2.11,<2.16"; \
    fi \
 && pip install --no-cache-dir ".[all]" \
 && pip install --no-cache-dir --no-deps "alfworld>=0.4.2,<0.5"

RUN useradd --create-home agent
USER agent
WORKDIR /home/agent
ENTRYPOINT ["agentgym"]
CMD ["--help"]
