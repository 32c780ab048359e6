#!/bin/bash
# Unpacks the Debian packages into an empty root and uses them as a stranger would: compile with what pkg-config
# says, run, and compare the exported functions.
#
# usage: make/test-deb.sh PACKAGES VERSION MULTIARCH
set -euo pipefail

packages=$1 version=$2 multiarch=$3
root=$(cd "$(dirname "$0")/.." && pwd)
architecture=$(dpkg --print-architecture)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

fail() { echo "test-deb: $*" >&2; exit 1; }

for package in libvfio-user0 libvfio-user-dev libvfio-user0-dbgsym; do
    file=$packages/${package}_${version}_${architecture}.deb
    [ -f "$file" ] || fail "$file is missing"
    dpkg-deb --extract "$file" sys
    dpkg-deb --control "$file" "control-$package"
    [ "$(dpkg-deb --field "$file" Version)" = "$version" ] || fail "$file has another version"
    (cd sys && md5sum --quiet --check "../control-$package/md5sums") || fail "$package: checksums"
    dpkg-deb --contents "$file" | awk '$2 != "root/root" { exit 1 }' || fail "$package: files are not root's"
done
grep -q 'libc6' control-libvfio-user0/control || fail "libvfio-user0 does not depend on the C library"

export PKG_CONFIG_LIBDIR=$scratch/sys/usr/lib/$multiarch/pkgconfig PKG_CONFIG_SYSROOT_DIR=$scratch/sys
export PKG_CONFIG_ALLOW_SYSTEM_LIBS=1 PKG_CONFIG_ALLOW_SYSTEM_CFLAGS=1
${CC:-cc} -std=gnu11 -Wall -Wextra -Werror $(pkg-config --cflags libvfio-user) "$root/tests/c/linkage.c" -o linkage \
    $(pkg-config --libs libvfio-user) -Wl,-z,now
lib=$scratch/sys/usr/lib/$multiarch
LD_LIBRARY_PATH=$lib ./linkage | sort | cmp - <(sort "$root/crates/libvfio-user/exports.txt") ||
    fail "the functions are not those of exports.txt"
${CC:-cc} -std=gnu11 $(pkg-config --cflags libvfio-user) "$root/tests/c/linkage.c" -o linkage-static \
    -L"$lib" -l:libvfio-user.a $(pkg-config --static --libs-only-l libvfio-user | sed 's/-lvfio-user//')
./linkage-static | sort | cmp - <(sort "$root/crates/libvfio-user/exports.txt") || fail "static: not those of exports.txt"

build_id=$(readelf -n "$lib/libvfio-user.so.0" | sed -n 's/.*Build ID: //p')
symbols=sys/usr/lib/debug/.build-id/${build_id:0:2}/${build_id:2}.debug
readelf -S --wide "$symbols" | grep -q '\.debug_info' || fail "no debug symbols for build id $build_id"
readelf -S --wide "$lib/libvfio-user.so.0" | grep -q '\.debug_info' && fail "the library still has its debug symbols"
[ "$(readelf -d "$lib/libvfio-user.so.0" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')" = libvfio-user.so.0 ] || fail "SONAME"
echo "test-deb: $(cd "$packages" && du -h --apparent-size libvfio-user*_"${version}"_"$architecture".deb | awk '{ printf "%s%s %s", sep, $2, $1; sep = ", " }'): linked shared and static, all functions there"
