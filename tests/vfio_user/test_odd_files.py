"""Files whose file system tells nonsense, as a client's own (FUSE) may.

``fstat`` is replaced by a few lines of C for one process that runs the test's body: no
file of this machine has such a block size.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .api import library_path
from .constants import *

SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/stat.h>
int fstat(int fd, struct stat *st)
{
    int (*next)(int, struct stat *) = (int (*)(int, struct stat *))
        dlsym(RTLD_NEXT, "fstat");
    int result = next(fd, st);
    if (result == 0 && st->st_size == MARKED_SIZE)
        st->st_blksize = BLOCK_SIZE;
    return result;
}
int fstat64(int fd, struct stat64 *st)
{
    return fstat(fd, (struct stat *)st);
}
"""

BODY = """
import os
import sys
from vfio_user.commands import *
from vfio_user.harness import *
ctx = create_ctx(sys.argv[1])
fds = Fds()
try:
    dma = setup_dma(ctx)
    sock = serve(ctx)
    fd = fds.memfd(int(sys.argv[2]))
    os.pwrite(fd, b"second", PAGE_SIZE)
    dma_map(ctx, sock, 0x100000, PAGE_SIZE, fd, offset=PAGE_SIZE)
    [info] = dma.register.calls
    start, length = info.mapping
    assert start <= info.vaddr, info
    assert info.vaddr + info.size <= start + length, info
    assert length <= 4 * PAGE_SIZE, info
    assert info.page_size & (info.page_size - 1) == 0, info
    assert mapped_bytes(t.iovec(info.vaddr, 6))[:] == b"second"
    dma_unmap(ctx, sock, 0x100000, PAGE_SIZE)
finally:
    ctx.close()
    fds.close_all()
"""

MARKED_SIZE = 3 * PAGE_SIZE + 77


@pytest.mark.defect("D69")
@pytest.mark.parametrize("block_size", [6000, 12288, -4096])
def test_block_size_that_is_no_power_of_two(tmp_path, block_size):
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("no C compiler")
    source, shim = tmp_path / "shim.c", tmp_path / "shim.so"
    source.write_text(SHIM)
    defines = [f"-DMARKED_SIZE={MARKED_SIZE}", f"-DBLOCK_SIZE={block_size}L"]
    arguments = ["-shared", "-fPIC", *defines, "-o", str(shim), str(source), "-ldl"]
    subprocess.run([compiler, *arguments], check=True)
    environment = {
        **os.environ,
        # After what is preloaded already: a sanitizer's runtime must be the first.
        "LD_PRELOAD": " ".join(filter(None, [os.environ.get("LD_PRELOAD"), str(shim)])),
        "LIBVFIO_USER_SO": library_path(),
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    result = subprocess.run(
        [sys.executable, "-c", BODY, str(tmp_path / "sock"), str(MARKED_SIZE)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
