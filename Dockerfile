# CPU:   docker build -t recdistill .
#        (--build-arg PIP_EXTRA_INDEX_URL=... with an index that has torch 2.13.0+cpu makes an image 4 GB smaller)
# CUDA:  docker build -t recdistill:cuda --build-arg VARIANT=cuda .       and run it with --gpus all
# Use:   docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" recdistill run configs/quickstart.yaml
FROM python:3.11.14-slim-bookworm AS build
ARG VARIANT=cpu
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/recdistill

# What recdistill stands on changes less often than recdistill, so it has a layer of its own.
COPY requirements requirements
COPY shims shims
COPY pyproject.toml ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
        > needed.txt \
    && if [ "$VARIANT" = cpu ]; then echo ./shims/fbgemm-gpu >> needed.txt; fi \
    && /opt/recdistill/bin/pip install --constraint "requirements/$VARIANT.txt" --requirement needed.txt

COPY README.md LICENSE ./
COPY recdistill recdistill
COPY pipelines pipelines
COPY configs/methods configs/methods
RUN /opt/recdistill/bin/pip install --no-deps . && /opt/recdistill/bin/pip check

FROM python:3.11.14-slim-bookworm
RUN useradd --uid 10001 --create-home recdistill && install -d -o recdistill /work
COPY --from=build /opt/recdistill /opt/recdistill
ENV PATH=/opt/recdistill/bin:$PATH PYTHONUNBUFFERED=1 MPLCONFIGDIR=/tmp/matplotlib
USER 10001
WORKDIR /work
ENTRYPOINT ["recdistill"]
CMD ["--help"]
