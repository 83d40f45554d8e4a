"""reader.py FOLDER OUT - somebody who opens a small file of FOLDER every few milliseconds, until killed.

Writes to OUT how long each took, in microseconds, a line each; what was read is dropped from the cache, so that the
disk is asked.
"""

import os
import random
import sys
import time

files = []
for folder, _, names in os.walk(sys.argv[1]):
    files += [os.path.join(folder, name) for name in names if not os.path.islink(os.path.join(folder, name))]
    if len(files) > 3000:
        break
chance = random.Random(1)
with open(sys.argv[2], "w", buffering=1) as out:
    while True:
        path = chance.choice(files)
        start = time.perf_counter()
        fd = os.open(path, os.O_RDONLY)
        os.read(fd, 65536)
        taken = time.perf_counter() - start
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
        out.write("%d\n" % (taken * 1e6))
        time.sleep(0.004)
