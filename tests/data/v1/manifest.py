"""Prints all that a tree must keep, a line for each name, sorted."""

import hashlib
import os
import stat
import sys

KINDS = {
    stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket", stat.S_IFCHR: "char", stat.S_IFBLK: "block",
}


def text(name):
    return name.decode("utf-8", "backslashreplace").replace("\n", "\\n")


def line(path, shown):
    at = os.lstat(path)
    words = [shown, KINDS[stat.S_IFMT(at.st_mode)], f"{at.st_mode & 0o7777:o}",
             f"{at.st_uid}:{at.st_gid}", str(at.st_mtime_ns)]
    if stat.S_ISREG(at.st_mode):
        with open(path, "rb") as file:
            words += [str(at.st_nlink), str(at.st_size), hashlib.file_digest(file, "sha256").hexdigest()]
    elif stat.S_ISLNK(at.st_mode):
        words.append(text(os.readlink(path)))
    elif not stat.S_ISDIR(at.st_mode):
        words.append(str(at.st_rdev))
    for name in sorted(os.listxattr(path, follow_symlinks=False)):
        value = os.getxattr(path, name, follow_symlinks=False)
        words.append(f"{name}={value.hex()}")
    return "\t".join(words)


top = os.fsencode(sys.argv[1])
lines = []
for directory, directories, files in os.walk(top):
    for name in directories + files:
        path = os.path.join(directory, name)
        lines.append(line(path, text(os.path.relpath(path, top))))
print("\n".join(sorted(lines)))
