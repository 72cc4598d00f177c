#!/bin/sh
# The libraries that a node stands on, from a package index, into a new virtual environment, with the versions of
# constraints.txt. `make install`, install.sh and the Dockerfile all come here, because the order matters:
#   torch before all others, torchvision without its dependencies (its wheel asks for a torch of its own, and would
#   replace ours), pyradiomics built in the environment (its build imports numpy without saying so).
#
#   environment.sh PYTHON FOLDER          with CUDA=1 or CUDA=0 in the environment: which build of torch must come
set -eu
test $# -eq 2 || { echo "usage: environment.sh PYTHON FOLDER" >&2; exit 2; }
python=$1 folder=$2
here=$(cd "$(dirname "$0")" && pwd)

"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || {
    echo "$python is $("$python" --version 2>&1): dicomnode needs Python 3.11, 3.12 or 3.13" >&2
    exit 1
}
command -v cc >/dev/null || {
    echo "a C compiler is needed to build pyradiomics: install gcc (Debian: build-essential; RHEL: gcc)" >&2
    exit 1
}
"$python" -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || {
    echo "Python's headers are needed to build pyradiomics: install python3-dev (RHEL: python3-devel) of $python's version" >&2
    exit 1
}
"$python" -m venv "$folder"
pip() {
    "$folder/bin/python" -m pip --disable-pip-version-check install --quiet --constraint "$here/../constraints.txt" "$@"
}
pip setuptools wheel numpy
pip torch
case ${CUDA:-} in
1) "$folder/bin/python" -c 'import sys, torch; sys.exit(torch.version.cuda is None)' || {
    echo "CUDA=1, but torch came as a build for CPUs: take it from an index that has its CUDA build" >&2
    exit 1
} ;;
0) "$folder/bin/python" -c 'import sys, torch; sys.exit(torch.version.cuda is not None)' ||
    echo "torch came as its CUDA build, 3 GB larger: PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS may name where a CPU build is" >&2 ;;
esac
pip --no-deps torchvision
PYTHONPATH="$here/pyradiomics-build" pip --no-build-isolation pyradiomics
