//! Why a connection ends: the code that travels, and what it means.

use std::fmt;

/// Why a connection is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Close {
    /// This side or the other has no more use for it.
    Done,
    /// Both sides had dialled at once, or a newer connection has taken its place.
    Replaced,
    /// A frame was over its limit, unknown, malformed or out of place.
    Protocol,
    /// What was sent was not read for too long.
    Slow,
    /// There are as many connections, or refused attempts, as there may be.
    Full,
    /// No portal was opened on it in time.
    Idle,
    /// Nothing came any more.
    TimedOut,
    /// The other side has restarted and knows nothing of it.
    Reset,
    /// The transport failed in another way.
    Transport(String),
}

impl Close {
    /// The code that travels, for the reasons that do.
    pub(crate) fn code(&self) -> quinn::VarInt {
        let code = match self {
            Self::Done | Self::TimedOut | Self::Reset | Self::Transport(_) => 0u32,
            Self::Replaced => 1,
            Self::Protocol => 2,
            Self::Slow => 3,
            Self::Full => 4,
            Self::Idle => 5,
        };
        code.into()
    }

    fn from_code(code: quinn::VarInt) -> Option<Self> {
        Some(match code.into_inner() {
            0 => Self::Done,
            1 => Self::Replaced,
            2 => Self::Protocol,
            3 => Self::Slow,
            4 => Self::Full,
            5 => Self::Idle,
            _ => return None,
        })
    }

    /// Whether another connection may fare better.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Protocol)
    }
}

impl From<quinn::ConnectionError> for Close {
    fn from(error: quinn::ConnectionError) -> Self {
        match error {
            quinn::ConnectionError::ApplicationClosed(close) => {
                let why = Self::from_code(close.error_code);
                why.unwrap_or_else(|| Self::Transport(format!("code {}", close.error_code)))
            }
            quinn::ConnectionError::TimedOut => Self::TimedOut,
            quinn::ConnectionError::Reset => Self::Reset,
            quinn::ConnectionError::LocallyClosed => Self::Done,
            other => Self::Transport(other.to_string()),
        }
    }
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "closed",
            Self::Replaced => "another connection to the same peer has taken its place",
            Self::Protocol => "the protocol was broken",
            Self::Slow => "what was sent was not read for too long",
            Self::Full => "there are too many connections or attempts",
            Self::Idle => "no portal was opened on it",
            Self::TimedOut => "nothing came any more",
            Self::Reset => "the peer has restarted",
            Self::Transport(what) => what,
        })
    }
}
