//! Exit codes; scripts rely on them.

use std::process::ExitCode;

use crate::error::Error;

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exit(pub(super) u8);

impl Exit {
    /// Done.
    pub(super) const DONE: Self = Self(0);

    /// The reader of our output went away; what a shell reports for a program that SIGPIPE ended.
    pub(super) const BROKEN_PIPE: Self = Self(141);

    /// 0 for what was asked for (`--help`), 2 for wrong usage.
    pub(super) fn from_clap(error: &clap::Error) -> Self {
        Self(u8::try_from(error.exit_code()).unwrap_or(2))
    }

    /// The more serious of two: a failure (1, 11, 12 …) over done in part (3) over done.
    pub(super) fn worse(self, other: Self) -> Self {
        let rank = |exit: Self| match exit.0 {
            0 => 0,
            3 => 1,
            _ => 2,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

impl From<&Error> for Exit {
    fn from(error: &Error) -> Self {
        Self(error.code().exit_code())
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}
