#!/bin/sh
# Installs what the tests, the demonstration and the benchmarks need beside Go,
# git and make: Debian packages, and Sendmail unpacked below build/cache. It is
# quick when all is there, starts no service, leaves none enabled, and touches
# no configuration of a server that was there before.
#
# SLUICE_CACHE is where Sendmail is unpacked (build/cache of this repository).
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cache=${SLUICE_CACHE:-$here/build/cache}
sendmail=$cache/sendmail/usr/libexec/sendmail/sendmail

servers="postfix clamav-daemon clamav clamav-milter"
tools="gcc libc6-dev swaks miltertest xz-utils zip procps iproute2 ca-certificates"

# The tests start Postfix, which must be root; so does this.
if [ "$(id -u)" -ne 0 ]; then
	if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
		mkdir -p "$cache" # ours, not root's
		exec sudo -n SLUICE_CACHE="$cache" "$0"
	fi
	echo "Postfix runs as root only, and so do its tests. Please type: sudo make ${SLUICE_TARGET:-test}" >&2
	exit 77
fi

installed() {
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null || :)" = installed ]
}

missing_of() {
	for package in "$@"; do
		installed "$package" || echo "$package"
	done
}

sendmail_runs() {
	[ -x "$sendmail" ] && ! ldd "$sendmail" 2>&1 | grep -q 'not found'
}

missing=$(missing_of $servers $tools)
if [ -z "$missing" ] && sendmail_runs; then
	exit 0
fi

export DEBIAN_FRONTEND=noninteractive
apt() { apt-get -q -o DPkg::Lock::Timeout=300 "$@"; }

# A service that a package brings must not start: what was at policy-rc.d's place
# comes back at the end, also after a run that was killed.
policy=/usr/sbin/policy-rc.d
aside=$policy.before-sluice
work=
restore() {
	if [ -e "$aside" ] || [ -L "$aside" ]; then
		mv -f "$aside" "$policy"
	else
		rm -f "$policy"
	fi
	[ -z "$work" ] || rm -rf "$work"
}
trap restore EXIT
trap 'exit 1' HUP INT TERM
if [ -e "$aside" ] || [ -L "$aside" ]; then
	rm -f "$policy"
elif [ -e "$policy" ] || [ -L "$policy" ]; then
	mv "$policy" "$aside"
fi
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"

echo "installing what the tests need:" $missing "$(sendmail_runs || echo '(and Sendmail, unpacked)')"
apt update || echo "apt-get update failed; going on with the lists that are here" >&2

if [ -n "$missing" ]; then
	if ! installed postfix && command -v debconf-set-selections >/dev/null; then
		echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections
	fi
	apt install -y --no-install-recommends $missing
	# Nor at the next boot, unless it was there before.
	if command -v systemctl >/dev/null; then
		for package in $missing; do
			case $package in
			postfix) units="postfix.service" ;;
			clamav-daemon) units="clamav-daemon.service clamav-daemon.socket" ;;
			clamav) units="clamav-freshclam.service" ;;
			clamav-milter) units="clamav-milter.service" ;;
			*) continue ;;
			esac
			systemctl --quiet disable $units 2>/dev/null || : # no systemd here, or no such unit
		done
	fi
fi

# Sendmail can't be installed beside Postfix: it is unpacked, and only the libraries
# it is linked with are installed.
if ! sendmail_runs; then
	libraries=$(apt-cache depends sendmail-bin | awk '$1 == "Depends:" && $2 ~ /^lib/ { print $2 }')
	missing=$(missing_of $libraries)
	[ -z "$missing" ] || apt install -y --no-install-recommends $missing
	work=$(mktemp -d)
	(cd "$work" && apt -o APT::Sandbox::User=root download sendmail-bin && dpkg-deb -x sendmail-bin_*.deb tree)
	chmod 755 "$work/tree/usr/libexec/sendmail/sendmail" # not set-gid here
	mkdir -p "$cache"
	rm -rf "$cache/sendmail"
	cp -R "$work/tree" "$cache/sendmail"
	chmod 755 "$cache/sendmail"
	sendmail_runs || {
		ldd "$sendmail" >&2 || :
		echo "$sendmail doesn't run here" >&2
		exit 69
	}
fi
