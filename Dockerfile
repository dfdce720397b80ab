# djsb with all its extras. Build: docker build -t djsb .   Run: docker run --rm -it --gpus all -v "$PWD:/work" djsb auto my-study
# A CPU image: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu
FROM python:3.11-slim AS build
ARG TORCH_INDEX=https://pypi.org/simple
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /src
RUN python -m venv /opt/djsb
COPY constraints.txt ./
RUN /opt/djsb/bin/pip install --no-cache-dir -c constraints.txt torch==2.13.0 --index-url "$TORCH_INDEX"
COPY pyproject.toml README.md LICENSE CHANGELOG.md djsb.py ./
COPY .ci/wheel.py .ci/wheel.py
COPY app app
COPY agent agent
COPY engine engine
COPY recipes recipes
COPY prompts prompts
RUN /opt/djsb/bin/pip install --no-cache-dir -c constraints.txt ".[all]"

FROM python:3.11-slim
COPY --from=build /opt/djsb /opt/djsb
ENV PATH=/opt/djsb/bin:$PATH
RUN useradd --create-home --uid 1000 djsb
USER 1000
WORKDIR /work
ENTRYPOINT ["djsb"]
CMD ["--help"]
