#!/bin/bash
# Divides an installed tree into Debian packages.
#
# usage: make/deb.sh STAGE MULTIARCH VERSION MAINTAINER OUT
#   STAGE/all is what `make install PREFIX=/usr` made; the packages' trees appear beside it, the packages in OUT.
set -euo pipefail
umask 022

stage=$1 multiarch=$2 version=$3 maintainer=$4 out=$5
root=$(cd "$(dirname "$0")/.." && pwd)
all=$stage/all lib=usr/lib/$multiarch
architecture=$(dpkg --print-architecture)
objcopy=${OBJCOPY:-objcopy}
# The same packages from the same commit, whenever and wherever they are made.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH

# doc PACKAGE: copyright and changelog, which every package has.
doc() {
    local dir=$stage/$1/usr/share/doc/$1
    mkdir -p "$dir"
    {
        echo "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/"
        echo
        echo "Files: *"
        grep -m1 '^Copyright' "$root/LICENSE-BSD" | sed 's/^Copyright\( (c)\)\?/Copyright:/'
        echo "License: BSD-3-Clause or Apache-2.0"
        echo
        echo "License: BSD-3-Clause"
        sed -e 's/^$/./' -e 's/^/ /' "$root/LICENSE-BSD"
        echo
        echo "License: Apache-2.0"
        echo " See /usr/share/common-licenses/Apache-2.0."
    } >"$dir/copyright"
    gzip -9n <"$root/CHANGELOG.md" >"$dir/changelog.gz"
}

# pack PACKAGE: what stands on standard input is the rest of its control file.
pack() {
    local tree=$stage/$1
    mkdir -p "$tree/DEBIAN"
    doc "$1"
    {
        echo "Package: $1"
        echo "Source: libvfio-user"
        echo "Version: $version"
        echo "Architecture: $architecture"
        echo "Maintainer: $maintainer"
        echo "Installed-Size: $(du -k -s --apparent-size --exclude=DEBIAN "$tree" | cut -f1)"
        cat
    } >"$tree/DEBIAN/control"
    (cd "$tree" && find usr -type f -printf '%P\0' | sort -z | sed -z 's|^|usr/|' | xargs -0 md5sum) >"$tree/DEBIAN/md5sums"
    find "$tree" -newermt "@$SOURCE_DATE_EPOCH" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    dpkg-deb --root-owner-group --build "$tree" "$out/${1}_${version}_${architecture}.deb"
}

# move PACKAGE PATH...: from the installed tree into the package's.
move() {
    local tree=$stage/$1 path
    shift
    for path; do
        mkdir -p "$tree/$(dirname "$path")"
        mv "$all/$path" "$tree/$path"
    done
}

mkdir -p "$out"
so=$(basename "$(readlink -f "$all/$lib/libvfio-user.so.0")")

move libvfio-user-dev usr/include/vfio-user "$lib/libvfio-user.a" "$lib/libvfio-user.so" "$lib/pkgconfig/libvfio-user.pc"
move libvfio-user0 "$lib/$so" "$lib/libvfio-user.so.0"

# Debug symbols go where debuggers look for them: under the build id.
library=$stage/libvfio-user0/$lib/$so
build_id=$(readelf -n "$library" | sed -n 's/.*Build ID: //p')
[ -n "$build_id" ] || { echo "deb: $library has no build id, so that debuggers could not find its symbols"; exit 1; }
symbols=usr/lib/debug/.build-id/${build_id:0:2}/${build_id:2}.debug
mkdir -p "$(dirname "$stage/libvfio-user0-dbgsym/$symbols")"
"$objcopy" --only-keep-debug --compress-debug-sections "$library" "$stage/libvfio-user0-dbgsym/$symbols"
"$objcopy" --strip-unneeded "$library"
"$objcopy" --strip-debug --enable-deterministic-archives "$stage/libvfio-user-dev/$lib/libvfio-user.a"
chmod 644 "$library" "$stage/libvfio-user0-dbgsym/$symbols"

mkdir -p "$stage/libvfio-user0/DEBIAN" "$stage/control/debian"
echo "libvfio-user 0 libvfio-user0 (>= $version)" >"$stage/libvfio-user0/DEBIAN/shlibs"
echo "activate-noawait ldconfig" >"$stage/libvfio-user0/DEBIAN/triggers"
# What the library itself needs, by name and version of the packages that have it.
printf 'Source: libvfio-user\n\nPackage: libvfio-user0\nArchitecture: any\n' >"$stage/control/debian/control"
depends=$(cd "$stage/control" && dpkg-shlibdeps -O "$library" | sed -n 's/^shlibs:Depends=//p')

pack libvfio-user0 <<END
Section: libs
Priority: optional
Multi-Arch: same
Depends: $depends
Description: PCI devices for virtual machines, served over a UNIX socket
 A drop-in for libvfio-user.so.0: the server half of the vfio-user protocol,
 for emulated PCI devices in processes of their own.
END
pack libvfio-user-dev <<END
Section: libdevel
Priority: optional
Multi-Arch: same
Depends: libvfio-user0 (= $version), libc6-dev
Description: PCI devices for virtual machines, development files
 Headers, static library and pkg-config file of libvfio-user.
END
pack libvfio-user0-dbgsym <<END
Section: debug
Priority: optional
Multi-Arch: same
Depends: libvfio-user0 (= $version)
Description: PCI devices for virtual machines, debug symbols
 Debug symbols of libvfio-user0, found by debuggers through its build id.
END
