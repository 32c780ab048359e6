#!/usr/bin/env bash
# Whether llvm-cov and llvm-profdata are there that read what rustc's LLVM writes (that version, or a newer one).
# They are looked for where pytest-clib looks. If there are none: one line that says what to install, and failure.
set -euo pipefail

needed=$("${RUSTC:-rustc}" -vV | sed -n 's/^LLVM version: //p')
found=()
for folder in /usr/lib/llvm-*/bin /usr/local/llvm*/bin ~/.rustup/toolchains/*/lib/rustlib/*/bin \
  "$(dirname "$(readlink -f "$(command -v llvm-cov || echo /none/llvm-cov)")")"; do
  [ -x "$folder/llvm-cov" ] && [ -x "$folder/llvm-profdata" ] || continue
  version=$("$folder/llvm-cov" --version | sed -n 's/.*version \([0-9.]*[0-9]\).*/\1/p' | head -1)
  found+=("$version")
  if [ "${version%%.*}" -ge "${needed%%.*}" ]; then exit 0; fi
done
have=${found[*]:-none}
echo "coverage needs llvm-cov and llvm-profdata of LLVM ${needed%%.*} or later, which rustc uses ($needed); here: $have." >&2
echo "Install them: rustup component add llvm-tools, or on Debian with a release that has it: apt-get install llvm-${needed%%.*}" >&2
exit 1
