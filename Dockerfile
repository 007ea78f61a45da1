# The bundle with all its parts, its weights included. It needs Docker 23 or newer (BuildKit), and network to build. On the CPU:
#   docker build -t meta-registration .
# with the builds of torch for the CPU, which make the image a quarter of the size:
#   docker build --build-arg PIP_OPTIONS="--extra-index-url https://download.pytorch.org/whl/cpu" -t meta-registration .
# On CUDA, from an image that brings Python 3.11 or newer and a CUDA build of torch 2.8 or newer, which is kept:
#   docker build --build-arg BASE=pytorch/pytorch:2.8.0-cuda12.8-cudnn9-runtime -t meta-registration:cuda .
# Then, with the images in the folder where you are, in which the results will be yours:
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" meta-registration register fixed.nii.gz moving.nii.gz
# On CUDA, add --gpus all, and to train --ipc=host: the processes that load images share more memory than Docker gives them.
ARG BASE=python:3.11-slim
FROM ${BASE}
# Further options of pip.
ARG PIP_OPTIONS=""
# The sources are there for this command alone: copied, they would stay in the image a second time.
RUN --mount=type=bind,target=/source,rw pip install --no-cache-dir ${PIP_OPTIONS} "/source[all]"
# Any user may have run it, with no home to write to.
ENV MPLCONFIGDIR=/tmp/matplotlib PYTHONUNBUFFERED=1
WORKDIR /data
USER 1000:1000
ENTRYPOINT ["meta-registration"]
CMD ["--help"]
