"""Makes the tree that the files of this directory hold."""

import os
import random
import socket
import sys

draw = random.Random(1)
os.umask(0)
os.chdir(sys.argv[1])


def put(path, data, mode=0o644):
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, mode)


def words(count):
    return b"".join(draw.choice([b"chunk ", b"of ", b"the ", b"tree ", b"\n", b"0x5a "])
                    for _ in range(count))


def coin(count):
    """One bit of chance in each byte: cut like any other, stored small."""
    return bytes(draw.getrandbits(1) for _ in range(count))


# Below a chunk: inline, grouped, one more byte than either.
os.mkdir("small")
for size in [0, 1, 511, 512, 513, 4096, 65535, 65536, 65537]:
    put(f"small/{size}", coin(size))
# Groups: small files next to each other, of several kinds of content.
os.mkdir("sources")
for n in range(60):
    put(f"sources/{n:02}.txt", words(draw.randrange(100, 2000)))
put("sources/again.txt", open("sources/07.txt", "rb").read())
# Each cut rule, with what has no cut in it, and holes.
os.mkdir("cut")
put("cut/medium", coin(700_000))
put("cut/zeros", bytes(600_000))
with open("cut/sparse", "wb") as file:
    file.seek(1_000_000)
    file.write(words(5000))
    file.truncate(3_000_000)
block = coin(1 << 20)
with open("cut/large", "wb") as file:
    for n in range(33):
        file.write(block[n % 2:])
# Kinds, names, attributes.
os.mkdir("kinds")
os.symlink("../small/512", "kinds/link")
os.symlink("x" * 4095, "kinds/long")
os.mkfifo("kinds/fifo", 0o640)
os.mknod("kinds/null", 0o20666, os.makedev(1, 3))
os.mknod("kinds/disk", 0o60600, os.makedev(259, 70000))
socket.socket(socket.AF_UNIX).bind("kinds/socket")
os.link("small/4096", "kinds/hard")
put("kinds/set-id", b"#!/bin/sh\n", 0o6755)
put("kinds/attributes", b"x")
os.setxattr("kinds/attributes", "user.empty", b"")
os.setxattr("kinds/attributes", "user.long", bytes(range(256)) * 8)
os.setxattr("kinds/attributes", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
os.setxattr("kinds/attributes", "system.posix_acl_access",
            bytes.fromhex("0200000001000600ffffffff02000400e803000004000400ffffffff10000600ffffffff20000000ffffffff"))
os.chown("kinds/link", 1000, 1001, follow_symlinks=False)
os.chown("kinds/fifo", 4294967294, 65534)
os.mkdir("kinds/empty", 0o1777)
put(b"kinds/\xff\xfe name\n", b"not UTF-8")
put("kinds/" + "n" * 255, b"long name")
# Times last: what is in a directory changes its own.
times = [-1_000_000_000_123_456_789, 0, 1, 999_999_999, 1_700_000_000_123_456_789, 7_258_118_400_000_000_001]
for directory, directories, files in os.walk(b".", topdown=False):
    for name in files + directories:
        time = draw.choice(times)
        os.utime(os.path.join(directory, name), ns=(time, time), follow_symlinks=False)
os.utime(".", ns=(1_700_000_000_000_000_000,) * 2)
