//! The one place where an error becomes an errno.

use fuser::Errno;
use warp_flow::{FlowError, Kind};

/// What the kernel is told.
pub(crate) fn errno(error: &FlowError) -> Errno {
    match error.kind() {
        Kind::NotFound => Errno::ENOENT,
        Kind::Refused => Errno::EACCES,
        Kind::Full => Errno::ENOSPC,
        Kind::Busy => Errno::EBUSY,
        Kind::Usage => Errno::EINVAL,
        // The archive's bytes are damaged, or its disk is.
        Kind::Failed | Kind::Partial | Kind::Integrity | Kind::Interrupted => Errno::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use warp_format::FormatError;

    #[test]
    fn each_kind_of_error_has_its_errno() {
        let io = |kind: std::io::ErrorKind| FlowError::io("x", std::io::Error::from(kind));
        let rows = [
            (io(std::io::ErrorKind::StorageFull), Errno::ENOSPC),
            (io(std::io::ErrorKind::Other), Errno::EIO),
            (FlowError::NotFound { path: "x".into() }, Errno::ENOENT),
            (FlowError::Corrupt(FormatError::Invalid { at: "x" }), Errno::EIO),
            (FlowError::Lost { what: "x" }, Errno::EIO),
            (FlowError::Corrupt(FormatError::Locked), Errno::EACCES),
        ];
        for (error, want) in rows {
            assert_eq!(errno(&error).code(), want.code(), "{error}");
        }
    }
}
