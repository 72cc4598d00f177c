#!/bin/sh
# Installs dicomnode as a service: see `install.sh --help` and docs/admin/install.md. For /bin/sh of Debian and RHEL families.
set -eu

usage() {
    cat <<EOF
install.sh: install dicomnode as a service, as root

  install.sh                     from this folder, with a Python package index
  install.sh --offline ARCHIVE   from an archive made by \`make offline\`, without any network
  install.sh --upgrade           the same, where an older version is installed; also with --offline ARCHIVE
  install.sh --rollback          back to the version before the upgrade
  install.sh --uninstall         remove program and units; data, configuration and user stay
  install.sh --uninstall --purge remove these too

  --prefix DIR     programs [/opt/dicomnode]
  --state DIR      configuration, images, results [/var/lib/dicomnode]
  --python PROG    Python 3.11, 3.12 or 3.13 [the first that is found]
  --training       the libraries of \`training\` and of nightly retraining too
  --tracing        those of monitoring.traces too
  --packages       install what is missing of the system's packages (apt-get, dnf)
  --no-service     files only: start, stop and ask nothing of systemd

Installing twice changes nothing. A configuration that is there is never overwritten.
EOF
}

say() { echo "install.sh: $*"; }
fail() {
    echo "install.sh: $*" >&2
    exit 1
}
misused() {
    echo "install.sh: $* (--help shows the options)" >&2
    exit 2
}

user=dicomnode
cache=/var/cache/dicomnode
units=/etc/systemd/system
wrapper=/usr/local/sbin/dicomnode
home=$(cd "$(dirname "$0")/.." && pwd)
prefix=/opt/dicomnode state=/var/lib/dicomnode python='' archive='' extras='' action=install
purge=no packages=no service=yes

value() { if test $# -lt 2 || test -z "$2"; then misused "$1 needs a value"; fi; }
while test $# -gt 0; do
    case $1 in
    --prefix) value "$@"; prefix=$2; shift ;;
    --state) value "$@"; state=$2; shift ;;
    --python) value "$@"; python=$2; shift ;;
    --offline) value "$@"; archive=$2; shift ;;
    --training) extras=$extras,training ;;
    --tracing) extras=$extras,tracing ;;
    --upgrade) action=upgrade ;;
    --rollback) action=rollback ;;
    --uninstall) action=uninstall ;;
    --purge) purge=yes ;;
    --packages) packages=yes ;;
    --no-service) service=no ;;
    --help | -h) usage; exit 0 ;;
    *) misused "unknown option $1" ;;
    esac
    shift
done
test "$purge" = no || test "$action" = uninstall || misused "--purge goes with --uninstall"
test "$(id -u)" -eq 0 || fail "must be run as root: it makes a user and installs a service"
for folder in "$prefix" "$state"; do
    case $folder in
    /*[!A-Za-z0-9._/-]* | *..* | */ | *//*) misused "«$folder»: give a plain absolute path, of letters, digits, . _ - and /" ;;
    /*/*) ;;
    *) misused "«$folder»: give an absolute path at least two levels deep, such as /opt/dicomnode" ;;
    esac
done
case $prefix/ in "$state"/*) misused "--prefix must not lie in --state" ;; esac
case $state/ in "$prefix"/*) misused "--state must not lie in --prefix" ;; esac
case $archive in '' | /*) ;; *) archive=$PWD/$archive ;; esac
case $python in '' | /*) ;; */*) python=$PWD/$python ;; esac
# Python imports from the folder that it is called in, and from PYTHONPATH, first: neither a clone nor what anybody has
# laid into /tmp shall be taken for the version that is installed.
cd /
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP
systemd_runs() { test "$service" = yes && test -d /run/systemd/system && command -v systemctl >/dev/null; }

# What one installation is: noted here, so that --upgrade, --rollback and --uninstall find it.
record=$prefix/installed
noted() { sed -n "s/^$1=//p" "$record"; }
if test -f "$record"; then
    there=$(noted state)
    test "$there" = "$state" || test "$state" = /var/lib/dicomnode || fail "$record names the state folder $there: leave --state out"
    case $there in /*/*) state=$there ;; *) fail "$record is damaged: it names no state folder" ;; esac
    extras=$extras,$(noted extras) # what was asked for once stays
fi
extras=$(echo "$extras" | tr , '\n' | sed '/^$/d' | LC_ALL=C sort -u | paste -s -d , -)

as_node() {
    runuser -u "$user" -- env HOME=$cache XDG_CACHE_HOME=$cache MPLCONFIGDIR=$cache/matplotlib NUMBA_CACHE_DIR=$cache/numba "$@"
}

uninstall() {
    test -f "$record" || fail "nothing to remove: $record is not there (--prefix names the folder)"
    if systemd_runs; then systemctl disable --now --quiet dicomnode.service || true; fi
    rm -f $units/dicomnode.service $wrapper
    if test "$purge" = yes; then rm -rf $units/dicomnode.service.d; fi
    if systemd_runs; then systemctl daemon-reload; fi
    made_user=$(noted made_user)
    rm -rf "$prefix/versions" "$prefix/.venv"
    # Until all is gone, --uninstall --purge has to know what was ours.
    printf 'state=%s\nmade_user=%s\n' "$state" "$made_user" >"$record"
    if test "$purge" = no; then
        say "removed. $state (configuration, images, results) and the user $user stay: --purge would have removed them"
        return
    fi
    for folder in "$state" $cache; do
        # What is in it, also where it is a link or a disk of its own
        if test -d "$folder"; then find "$folder/" -mindepth 1 -delete; fi
        rmdir "$folder" 2>/dev/null || test ! -e "$folder" || say "$folder is empty and stays: a link, or a disk of its own"
    done
    if test "$made_user" = yes && id $user >/dev/null 2>&1; then userdel $user; fi
    rm -f "$record"
    rmdir "$prefix" 2>/dev/null || say "$prefix stays: there is more in it"
    say "removed, with all data"
}

# Debian's and RHEL's names for what a fresh system lacks.
need_packages() {
    if command -v apt-get >/dev/null; then
        command="apt-get install -y --no-install-recommends python3 python3-venv"
        test "$offline" = yes || command="$command python3-dev gcc libc6-dev"
    elif command -v dnf >/dev/null; then
        command="dnf install -y python3.11"
        test "$offline" = yes || command="$command python3.11-devel gcc"
    else
        fail "$1, and neither apt-get nor dnf is here: install it, then run this again"
    fi
    test "$packages" = yes || fail "$1. Run «$command», or give --packages"
    say "$1: $command"
    case $command in apt-get*) apt-get update -qq ;; esac
    DEBIAN_FRONTEND=noninteractive $command >/dev/null || fail "«$command» failed: see above"
}

usable() { # a Python of the right version that can make environments
    command -v "$1" >/dev/null && "$1" -c "
import sys, ensurepip, venv
v = '%d.%d' % sys.version_info[:2]
sys.exit(v not in '$versions'.split())" 2>/dev/null
}
find_python() {
    versions="3.13 3.12 3.11"
    test "$offline" = no || versions=$(about python)
    if test -n "$python"; then
        usable "$python" || fail "$python is none of Python $versions, or lacks venv (Debian: python3-venv)"
        return
    fi
    for attempt in 1 2; do
        for wanted in $versions; do
            for python in python3 "python$wanted"; do
                # Without a compiler and headers only an archive can be installed.
                if usable "$python" && { test "$offline" = yes || { command -v cc >/dev/null && headers; }; }; then return; fi
            done
        done
        test "$attempt" = 2 || need_packages "no Python of version ${versions#* * }, with venv$(test "$offline" = yes || echo ", headers and a C compiler")"
    done
    fail "still no usable Python ($versions): name one with --python"
}
headers() { "$python" -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'; }

about() { sed -n "s/^$1=//p" "$source/about"; }

check_archive() { # every file of it, and no other
    (cd "$source" && sha256sum --check --strict --quiet SHA256SUMS) ||
        fail "the archive is damaged: the files above are not what SHA256SUMS says. Copy it again. Nothing was changed"
    (cd "$source" && find . ! -type d ! -path ./SHA256SUMS | sed 's,^\./,,' | LC_ALL=C sort) >"$work/found"
    sed 's/^[0-9a-f]*  //' "$source/SHA256SUMS" | LC_ALL=C sort >"$work/listed"
    cmp -s "$work/found" "$work/listed" || fail "the archive holds files that SHA256SUMS does not name. Nothing was changed"
    machine=$(uname -m)
    test "$(about machine)" = "$machine" || fail "the archive is for $(about machine), and this machine is $machine: make one there"
}

ours() { # $1: a folder that we write to, $2: what is in it if it is ours. Else chmod and --purge would hit somebody else's
    test ! -e "$1" || test -z "$(ls -A "$1")" || test -e "$1/$2" ||
        fail "$1 holds other things, and no $2: name another folder, or move them away. Nothing was changed"
}

open_source() {
    offline=no source=$home
    if test -n "$archive"; then
        offline=yes
        test -f "$archive" || fail "$archive: no such file"
        if test -f "$archive.sha256"; then
            test "$(cut -d' ' -f1 "$archive.sha256")" = "$(sha256sum "$archive" | cut -d' ' -f1)" ||
                fail "$archive is not what $archive.sha256 says: copy it again. Nothing was changed"
        fi
        mkdir "$work/archive"
        tar -xf "$archive" -C "$work/archive" --no-same-owner --strip-components=1 || fail "$archive cannot be unpacked: copy it again"
        source=$work/archive
    elif test -f "$home/SHA256SUMS" && test -d "$home/wheels"; then
        offline=yes
    fi
    if test "$offline" = yes; then
        for part in SHA256SUMS about wheels; do
            test -e "$source/$part" || fail "${archive:-$source} is no archive of \`make offline\`: it has no $part"
        done
        check_archive
        version=$(about version)
        content=$(sha256sum <"$source/SHA256SUMS")
    else
        test -f "$source/constraints.txt" || fail "$source is no folder of dicomnode's sources: run deploy/install.sh of a release"
        version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$source/dicomnode/__init__.py")
        content=$(cd "$source" && find dicomnode training weights/demo-synthetic pyproject.toml constraints.txt -type f \
            ! -name '*.pyc' -print | LC_ALL=C sort | xargs sha256sum | sha256sum)
    fi
}

free_space() {
    mkdir -p "$prefix"
    least=3000000
    test "$offline" = no || least=$(($(about installed_kb) + 100000))
    free=$(df -Pk "$prefix" | awk 'NR == 2 { print $4 }')
    test "$free" -ge "$least" || fail "$prefix has $((free / 1000)) MB free, and $((least / 1000)) MB are needed"
}

build() { # the environment of this version, whole or not at all
    made=$prefix/versions/$1
    if test -f "$made/complete"; then
        say "dicomnode $version is in $made already"
        return
    fi
    free_space
    rm -rf "$made"
    mkdir -p "$prefix/versions"
    chmod 0755 "$prefix" "$prefix/versions"
    say "installing dicomnode $version into $made (minutes)"
    named=dicomnode
    test -z "$extras" || named="dicomnode[$extras]"
    if test "$offline" = yes; then
        # Whatever pip is configured to fetch from here, it fetches nothing.
        for setting in $(env | sed -n 's/^\(PIP_[A-Z_]*\)=.*/\1/p'); do unset "$setting"; done
        export PIP_CONFIG_FILE=/dev/null
        "$python" -m venv "$made" || fail "$python cannot make an environment in $made"
        lists="--requirement $source/requirements.txt"
        for extra in $(echo "$extras" | tr , ' '); do lists="$lists --requirement $source/requirements-$extra.txt"; done
        # shellcheck disable=SC2086  # a list of options
        "$made/bin/python" -m pip --disable-pip-version-check install --quiet --no-compile --no-index --no-deps --require-hashes \
            --find-links "$source/wheels" $lists || fail "the wheels of the archive cannot be installed: see above"
    else
        "$source/deploy/environment.sh" "$python" "$made" || fail "the libraries cannot be installed: see above"
        # A copy, since setuptools builds in the folder of the sources.
        mkdir -p "$work/sources/weights" "$work/sources/docs/research"
        (cd "$source" && cp -R dicomnode training ae_config.toml pyproject.toml setup.py README.md LICENSE "$work/sources" &&
            cp -R weights/demo-synthetic "$work/sources/weights" && cp docs/research/training-run.toml "$work/sources/docs/research")
        "$made/bin/python" -m pip --disable-pip-version-check install --quiet --no-build-isolation \
            --constraint "$source/constraints.txt" "$work/sources${named#dicomnode}" || fail "dicomnode cannot be installed: see above"
    fi
    "$made/bin/python" -m pip --disable-pip-version-check check >"$work/check" || fail "the libraries do not fit together: $(cat "$work/check")"
    # The service may not write here: it would compile its sources at every start.
    "$made/bin/python" -m compileall -q -j 0 "$made/lib" >/dev/null 2>&1 || true
    # Units and example of this version, for a rollback too
    mkdir "$made/deploy" "$made/deploy/weights"
    cp -R "$source/deploy/dicomnode.service" "$source/deploy/drop-ins" "$source/ae_config.toml" "$made/deploy"
    # Of an archive also what its maker has added; in a clone the others are the developer's own.
    if test "$offline" = yes; then set -- "$source"/weights/*; else set -- "$source/weights/demo-synthetic" "$source/weights/gate.toml"; fi
    cp -R "$@" "$made/deploy/weights"
    chmod -R u=rwX,go=rX "$made"
    touch "$made/complete"
}

accepts_configuration() { # before anything is switched: does the new program read what the site has?
    test -f "$state/ae_config.toml" || return 0
    "$prefix/versions/$1/bin/python" - "$state/ae_config.toml" <<'EOF' || fail "version $2 does not accept $state/ae_config.toml: see above and CHANGELOG.md. Nothing was switched"
import pathlib, sys
from dicomnode import config, errors
try:
    config.load(pathlib.Path(sys.argv[1]))
except errors.DicomnodeError as error:
    sys.exit(str(error))
EOF
}

link() { # in one step, so that no moment is without
    ln -s "$1" "$2.new$$" && mv -fT "$2.new$$" "$2"
}

make_user() {
    made_user=no
    if test -f "$record"; then made_user=$(noted made_user); fi
    if ! id $user >/dev/null 2>&1; then
        nologin=$(command -v nologin || echo /usr/sbin/nologin)
        useradd --system --user-group --home-dir "$state" --no-create-home --shell "$nologin" $user || fail "the user $user cannot be made"
        made_user=yes
    fi
}

make_folders() {
    install -d -m 0700 -o $user -g $user "$state" $cache
    if test ! -e "$state/ae_config.toml"; then
        # Root's, since it says where images go; the node reads it.
        install -m 0640 -o root -g $user "$made/deploy/ae_config.toml" "$state/ae_config.toml"
        say "wrote $state/ae_config.toml: adapt it"
    fi
    install -m 0644 "$made/deploy/ae_config.toml" "$state/ae_config.toml.example"
    install -d -m 0750 -o $user -g $user "$state/weights"
    # The demonstration bundle belongs to the version; a site's own bundles are never touched. The node's user copies:
    # root does not write where that user could lay links.
    if ! cmp -s "$made/deploy/weights/demo-synthetic/model.toml" "$state/weights/demo-synthetic/model.toml" 2>/dev/null; then
        # shellcheck disable=SC2016  # the inner shell's own arguments
        as_node sh -ec 'rm -rf "$2.new" && cp -R "$1" "$2.new" && chmod -R u=rwX,g=rX,o= "$2.new" && rm -rf "$2" && mv "$2.new" "$2"' \
            copy "$made/deploy/weights/demo-synthetic" "$state/weights/demo-synthetic" || fail "the demonstration bundle cannot be copied"
    fi
    for added in "$made"/deploy/weights/*; do
        # shellcheck disable=SC2016
        as_node sh -ec 'test -e "$2" || { rm -rf "$2.new" && cp -R "$1" "$2.new" && chmod -R u=rwX,g=rX,o= "$2.new" && mv "$2.new" "$2"; }' \
            copy "$added" "$state/weights/$(basename "$added")" || fail "$added cannot be copied to $state/weights"
    done
}

write_unit() {
    unit=$made/deploy/dicomnode.service
    sed -e "s,/opt/dicomnode,$prefix,g" -e "s,/var/lib/dicomnode,$state,g" "$unit" >"$work/unit"
    # systemd's StateDirectory knows /var/lib alone
    test "$state" = /var/lib/dicomnode || sed -i '/^StateDirectory/d' "$work/unit"
    install -d "$units"
    changed=no
    if ! cmp -s "$work/unit" $units/dicomnode.service; then
        install -m 0644 "$work/unit" $units/dicomnode.service
        changed=yes
    fi
    cat >"$work/wrapper" <<EOF
#!/bin/sh
# dicomnode's commands, as the node's own user in its own folder. Written by install.sh. Give absolute paths.
cd $state || exit 1
PATH=$prefix/.venv/bin:\$PATH HOME=$cache XDG_CACHE_HOME=$cache MPLCONFIGDIR=$cache/matplotlib NUMBA_CACHE_DIR=$cache/numba
export PATH HOME XDG_CACHE_HOME MPLCONFIGDIR NUMBA_CACHE_DIR
test "\$(id -u)" -eq 0 || exec $prefix/.venv/bin/dicomnode "\$@"
exec runuser -u $user -- $prefix/.venv/bin/dicomnode "\$@"
EOF
    install -d "$(dirname $wrapper)"
    install -m 0755 "$work/wrapper" $wrapper
    if command -v restorecon >/dev/null; then restorecon -R "$prefix" "$state" $units/dicomnode.service $wrapper || true; fi
}

switch() { # $1: the environment that serves from now on
    current=''
    if test -L "$prefix/.venv"; then current=$(basename "$(readlink "$prefix/.venv")"); fi
    made=$prefix/versions/$1
    make_user
    as_node "$made/bin/python" -c '' 2>/dev/null ||
        fail "the user $user cannot run $(readlink -f "$made/bin/python"): name a Python with --python that all users may run"
    make_folders
    write_unit
    previous=$current
    if test "$current" = "$1"; then previous=$(noted previous); fi
    link "versions/$1" "$prefix/.venv"
    printf 'state=%s\nmade_user=%s\ncurrent=%s\nprevious=%s\nextras=%s\n' "$state" "$made_user" "$1" "$previous" "$extras" \
        >"$work/record"
    install -m 0644 "$work/record" "$record"
    # What is older than the version before goes.
    for old in "$prefix"/versions/*; do
        case $(basename "$old") in "$1" | "$previous") ;; *) rm -rf "$old" ;; esac
    done
    if systemd_runs; then
        test $changed = no || systemctl daemon-reload
        if systemctl is-active --quiet dicomnode && test "$current" != "$1"; then
            say "restarting the service: what is being received and analysed is finished first"
            systemctl restart dicomnode
        fi
    fi
}

# One at a time
test "$action" != install || mkdir -p "$prefix"
if test -d "$prefix"; then
    exec 9<"$prefix"
    flock -n 9 || fail "another install.sh is at work in $prefix"
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
umask 022

case $action in
uninstall) uninstall ;;
rollback)
    previous=''
    if test -f "$record"; then previous=$(noted previous); fi
    test -n "$previous" || fail "there is no version before: nothing to go back to"
    test -f "$prefix/versions/$previous/complete" || fail "$prefix/versions/$previous is no longer whole: install that release instead"
    version=${previous%%-*}
    accepts_configuration "$previous" "$version"
    switch "$previous"
    say "back at dicomnode $version. If it does not start («the catalogue has revision …»), see docs/admin/upgrade.md, «Back»"
    ;;
*)
    if test "$action" = upgrade; then
        test -L "$prefix/.venv" || fail "nothing to upgrade in $prefix: leave --upgrade out to install"
    fi
    ours "$state" ae_config.toml
    test -e "$prefix/versions" || ours "$prefix" installed
    open_source
    find_python
    tag=$("$python" -c 'import sys; print("py%d.%d" % sys.version_info[:2])')
    name=$version-$(echo "$content $extras" | sha256sum | cut -c1-8)-$tag
    if test "$action" = install && test -L "$prefix/.venv" && test "$(noted current)" != "$name"; then
        fail "$(noted current) is installed in $prefix: give --upgrade to install $name, or --uninstall"
    fi
    build "$name"
    accepts_configuration "$name" "$version"
    switch "$name"
    "$prefix/.venv/bin/dicomnode" --version >/dev/null || fail "dicomnode does not start: see above"
    say "dicomnode $version is installed. Next:"
    echo "  1. adapt $state/ae_config.toml (example: $state/ae_config.toml.example)"
    echo "  2. dicomnode check      # $wrapper, as the user $user"
    echo "  3. systemctl enable --now dicomnode"
    ;;
esac
