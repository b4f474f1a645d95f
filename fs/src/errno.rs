//! The one place where an error becomes an errno.

use fuser::Errno;
use warp_flow::{FlowError, Kind, Refusal};

/// What the kernel is told.
pub(crate) fn errno(error: &FlowError) -> Errno {
    if let FlowError::Refused(refusal) = error {
        return refused(*refusal);
    }
    match error.kind() {
        Kind::NotFound => Errno::ENOENT,
        Kind::Refused => Errno::EACCES,
        Kind::Full => Errno::ENOSPC,
        Kind::Busy => Errno::EBUSY,
        Kind::Usage => Errno::EINVAL,
        // The bytes are damaged, or their disk is; or no peer gives them.
        Kind::Failed | Kind::Partial | Kind::Integrity | Kind::Interrupted | Kind::Temporary => {
            Errno::EIO
        }
    }
}

fn refused(refusal: Refusal) -> Errno {
    match refusal {
        Refusal::Missing => Errno::ENOENT,
        Refusal::Exists => Errno::EEXIST,
        Refusal::NotEmpty => Errno::ENOTEMPTY,
        Refusal::NotADirectory => Errno::ENOTDIR,
        Refusal::IsADirectory => Errno::EISDIR,
        Refusal::NoAttribute => Errno::NO_XATTR,
        Refusal::Invalid => Errno::EINVAL,
        Refusal::NameTooLong => Errno::ENAMETOOLONG,
        Refusal::TooLarge => Errno::EFBIG,
        Refusal::AttributeTooLarge => Errno::E2BIG,
        Refusal::Unsupported => Errno::EOPNOTSUPP,
        Refusal::Elsewhere => Errno::EXDEV,
        Refusal::NotPermitted => Errno::EPERM,
        Refusal::ReadOnly => Errno::EROFS,
        Refusal::NoSpace => Errno::ENOSPC,
        Refusal::Quota => Errno::EDQUOT,
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
            (Refusal::Missing.into(), Errno::ENOENT),
            (Refusal::Exists.into(), Errno::EEXIST),
            (Refusal::NotEmpty.into(), Errno::ENOTEMPTY),
            (Refusal::NotADirectory.into(), Errno::ENOTDIR),
            (Refusal::IsADirectory.into(), Errno::EISDIR),
            (Refusal::NoAttribute.into(), Errno::ENODATA),
            (Refusal::Invalid.into(), Errno::EINVAL),
            (Refusal::NameTooLong.into(), Errno::ENAMETOOLONG),
            (Refusal::TooLarge.into(), Errno::EFBIG),
            (Refusal::AttributeTooLarge.into(), Errno::E2BIG),
            (Refusal::Unsupported.into(), Errno::EOPNOTSUPP),
            (Refusal::Elsewhere.into(), Errno::EXDEV),
            (Refusal::NotPermitted.into(), Errno::EPERM),
            (Refusal::ReadOnly.into(), Errno::EROFS),
            (Refusal::NoSpace.into(), Errno::ENOSPC),
            (Refusal::Quota.into(), Errno::EDQUOT),
            (FlowError::Stalled { why: io(std::io::ErrorKind::StorageFull).into() }, Errno::ENOSPC),
        ];
        for (error, want) in rows {
            assert_eq!(errno(&error).code(), want.code(), "{error}");
        }
    }
}
