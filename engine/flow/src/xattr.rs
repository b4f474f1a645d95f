//! Extended attributes on the host. ACLs are attributes
//! (`system.posix_acl_*`) and travel as they are.

use rustix::fs;
use rustix::io::{Errno, Result};
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Names and values of an open file's attributes.
pub(crate) fn read_all(fd: impl AsFd) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let fd = fd.as_fd();
    collect(|buffer| fs::flistxattr(fd, buffer), |name, buffer| fs::fgetxattr(fd, name, buffer))
}

/// The same for what cannot be opened: links, pipes, sockets, devices. The
/// directory is reached through its descriptor, the name is not followed.
pub(crate) fn read_all_at(dir: impl AsFd, name: &OsStr) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = path_at(dir, name);
    collect(
        |buffer| fs::llistxattr(&path, buffer),
        |name, buffer| fs::lgetxattr(&path, name, buffer),
    )
}

/// A path that names `name` in the directory behind a descriptor.
pub(crate) fn path_at(dir: impl AsFd, name: &OsStr) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd())).join(name)
}

fn collect(
    list: impl Fn(&mut [u8]) -> Result<usize>,
    get: impl Fn(&OsStr, &mut [u8]) -> Result<usize>,
) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let names = match grow(&list) {
        // A filesystem without attributes has none.
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        names => names?,
    };
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match grow(&|buffer: &mut [u8]| get(OsStr::from_bytes(name), buffer)) {
            Ok(value) => found.push((name.to_vec(), value)),
            // Removed meanwhile, or of a namespace that this user may list
            // but not read.
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

/// Calls with a growing buffer until the answer fits.
fn grow(call: &impl Fn(&mut [u8]) -> Result<usize>) -> Result<Vec<u8>> {
    let mut buffer = vec![0; 256];
    loop {
        match call(&mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < 128 << 10 => {
                buffer.resize(buffer.len() * 4, 0);
            }
            Err(e) => return Err(e),
        }
    }
}
