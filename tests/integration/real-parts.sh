#!/bin/sh
# Installs the real counterparts of the integration tests from Debian's packages; `make real-parts`.
#
# Nothing is started, nothing that is installed is removed, and when all are there nothing is done.
set -eu

PATH=$PATH:/usr/sbin:/sbin
export PATH

missing=
need() { # need COMMAND PACKAGE...
    command -v "$1" >/dev/null 2>&1 && return
    shift
    missing="$missing $*"
}
need haproxy haproxy
need danted dante-server
need microsocks microsocks
need tinyproxy tinyproxy-bin
need swaks swaks libnet-ssleay-perl libnet-dns-perl
need smtp-source postfix
need smtp-sink postfix
need posttls-finger postfix
need curl curl
need openssl openssl
ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || missing="$missing libfaketime"
need testssl testssl.sh
need sshd openssh-server
need ssh openssh-client
need ssh-keygen openssh-client
need unbound unbound
need nsd nsd
need unbound unbound
# swaks does TLS only with this module, which its package merely recommends.
! command -v perl >/dev/null 2>&1 || perl -MNet::SSLeay -e 1 2>/dev/null || missing="$missing libnet-ssleay-perl"

# Exim claims /usr/sbin/sendmail, as Postfix does: it is unpacked into the checkout, not installed.
parts=$(dirname "$0")/../../.real-parts
exim=$parts/exim4/usr/sbin/exim4
unpacked=
need_unpacked() { # need_unpacked COMMAND PACKAGE
    [ -x "$exim" ] || unpacked=$2
}
need_unpacked exim4 exim4-daemon-light
unpack_exim() {
    rm -rf "$parts/exim4"
    mkdir -p "$parts/exim4"
    (cd "$parts/exim4" && apt-get download -qq "$unpacked" && dpkg -x "$unpacked"_*.deb .)
    chmod u-s "$exim"
    echo "real-parts: unpacked $unpacked"
}
exim_libraries() { # the packages of the libraries that it lacks
    [ -x "$exim" ] && ldd "$exim" | grep -q 'not found' || return 0
    dpkg-deb -f "$parts"/exim4/*.deb Depends | tr ',' '\n' |
        sed -n 's/^ *\(lib[^ (|]*\).*/\1/p' | tr '\n' ' '
}
exim_user() { # it does not even start without the user that it was compiled for
    getent passwd Debian-exim >/dev/null
}

if [ -z "$missing$unpacked$(exim_libraries)" ] && exim_user; then
    echo "real-parts: all are installed"
    exit 0
fi
if ! command -v apt-get >/dev/null 2>&1; then
    echo "real-parts: this is not Debian or a relative of it; install by hand:$missing $unpacked" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "real-parts: needs root to install$missing $unpacked; try: sudo make real-parts" >&2
    exit 1
fi

# Debian starts a service when its package is installed, unless this file says no.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
if command -v debconf-set-selections >/dev/null 2>&1; then
    echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections
fi
apt-get update -qq
# --no-remove: a machine that has another mail server keeps it, and is told so.
[ -z "$unpacked" ] || unpack_exim
exim_user || useradd --system --user-group --no-create-home --home-dir /nonexistent \
    --shell /usr/sbin/nologin Debian-exim
missing="$missing $(exim_libraries)"
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends --no-remove $missing
echo "real-parts: installed $missing"
