# The bundle with all its parts, its weights included. On the CPU:
#   docker build -t meta-registration .
# On CUDA, from an image that brings Python 3.11 or newer and a CUDA build of torch 2.8 or newer, which is kept:
#   docker build --build-arg BASE=pytorch/pytorch:2.8.0-cuda12.8-cudnn9-runtime -t meta-registration:cuda .
# Then, with the images in the folder where you are:
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" meta-registration register fixed.nii.gz moving.nii.gz
ARG BASE=python:3.11-slim
FROM ${BASE}
# Further options of pip, such as an index with builds of torch for the CPU, which are a quarter of the size.
ARG PIP_OPTIONS=""
COPY . /source
RUN pip install --no-cache-dir ${PIP_OPTIONS} "/source[all]" && rm -r /source
ENV MPLCONFIGDIR=/tmp/matplotlib PYTHONUNBUFFERED=1
WORKDIR /data
ENTRYPOINT ["meta-registration"]
CMD ["--help"]
