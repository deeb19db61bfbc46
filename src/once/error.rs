//! What can go wrong, and what is handed back then.

use std::error;
use std::fmt;

use crate::codec::{DecodeError, EncodeError};

use super::claim::Pending;

/// Why a [`write`](crate::Once::write) was not acknowledged.
///
/// Exhaustive, so that a `match` handles every case.
pub enum Error<T> {
    /// No majority of the voters confirmed the write within the network's write timeout. Here is
    /// the value, to try again with.
    ///
    /// The write may have arrived and **may still win**: whether it did shows in the cell. To try
    /// again is harmless.
    Offline(T),
    /// The value could not be encoded, or is too large. Nothing was sent.
    Encoding(T, EncodeError),
    /// The network was shut down, for good: open a new one. A write that was under way may still
    /// win.
    NetworkDown,
}

/// Why a [`claim`](crate::Once::claim) has no answer.
///
/// Exhaustive, so that a `match` handles every case.
pub enum ClaimError<T> {
    /// No majority of the voters confirmed the claim within the network's write timeout, so it is
    /// not known whether it won, and it **may still win**. Hand the [`Pending`] to
    /// [`claim`](crate::Once::claim) again to ask on: it is the same proposal, so that a claim that
    /// won is told so.
    Offline(Pending<T>),
    /// Only from [`get_or_init`](crate::Once::get_or_init) and
    /// [`get_or_try_init`](crate::Once::get_or_try_init): no majority of the voters could be asked
    /// in time whether the cell has a value. The initialiser was not run and nothing was offered.
    Unreached,
    /// The value could not be encoded, or is too large. Nothing was sent.
    Encoding(T, EncodeError),
    /// The cell is decided, with a value that is not a `T` here.
    Decode(DecodeError),
    /// The network was shut down, for good: open a new one. A claim that was under way may still
    /// win.
    NetworkDown,
}

/// Why [`get_or_try_init`](crate::Once::get_or_try_init) has no value.
///
/// Exhaustive, so that a `match` handles every case.
pub enum InitError<T, E> {
    /// The initialiser failed with this error. Nothing was offered.
    Init(E),
    /// The initialiser was not run, or the cell did not take its value.
    Claim(ClaimError<T>),
}

/// Why a value could not be waited for or read.
///
/// Exhaustive, so that a `match` handles every case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadError {
    /// No majority of the voters could be asked within the network's write timeout. Waiting
    /// never ends with this one.
    Offline,
    /// The cell is decided, with a value that is not a `T` here.
    Decode(DecodeError),
    /// Only from an [`OnceMap`](crate::OnceMap): no slot has this key.
    Key(EncodeError),
    /// The network was shut down, for good: open a new one.
    NetworkDown,
}

const NETWORK_DOWN: &str = "the network was shut down; start a new one and open the cell there";

impl<T> fmt::Display for Error<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offline(_) => write!(
                f,
                "no majority of the voters confirmed the write in time; it may still win: \
                 write again, or look at the cell once it is online"
            ),
            Self::Encoding(_, error) => error.fmt(f),
            Self::NetworkDown => f.write_str(NETWORK_DOWN),
        }
    }
}

impl<T> fmt::Display for ClaimError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offline(_) => write!(
                f,
                "no majority of the voters confirmed the claim in time; it may still win: \
                 hand the pending claim to claim() again to learn whether it did"
            ),
            Self::Unreached => write!(
                f,
                "no majority of the voters could be asked in time whether the cell has a value, \
                 so it was not initialised; try again once the cell is online"
            ),
            Self::Encoding(_, error) => error.fmt(f),
            Self::Decode(error) => error.fmt(f),
            Self::NetworkDown => f.write_str(NETWORK_DOWN),
        }
    }
}

impl<T, E: fmt::Display> fmt::Display for InitError<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Init(error) => write!(f, "the initialiser failed: {error}"),
            Self::Claim(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offline => write!(
                f,
                "no majority of the voters could be asked in time; \
                 try again once the cell is online"
            ),
            Self::Decode(error) => error.fmt(f),
            Self::Key(error) => error.fmt(f),
            Self::NetworkDown => f.write_str(NETWORK_DOWN),
        }
    }
}

// `Debug` by hand: errors are for any `T`, and values do not belong into logs.

impl<T> fmt::Debug for Error<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offline(_) => f.write_str("Offline(..)"),
            Self::Encoding(_, error) => write!(f, "Encoding(.., {error:?})"),
            Self::NetworkDown => f.write_str("NetworkDown"),
        }
    }
}

impl<T> fmt::Debug for ClaimError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offline(pending) => f.debug_tuple("Offline").field(pending).finish(),
            Self::Unreached => f.write_str("Unreached"),
            Self::Encoding(_, error) => write!(f, "Encoding(.., {error:?})"),
            Self::Decode(error) => f.debug_tuple("Decode").field(error).finish(),
            Self::NetworkDown => f.write_str("NetworkDown"),
        }
    }
}

impl<T, E: fmt::Debug> fmt::Debug for InitError<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Init(error) => f.debug_tuple("Init").field(error).finish(),
            Self::Claim(error) => f.debug_tuple("Claim").field(error).finish(),
        }
    }
}

// `source` skips the error whose words `Display` has already used, so that a report that prints
// the whole chain says nothing twice.

impl<T> error::Error for Error<T> {}

impl<T> error::Error for ClaimError<T> {}

impl<T, E: error::Error> error::Error for InitError<T, E> {}

impl error::Error for ReadError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Neither `Debug` nor anything else.
    struct Opaque;

    const TOO_LARGE: EncodeError = EncodeError::TooLarge { bytes_max: 9 };

    #[test]
    fn errors_are_errors_for_any_value_and_say_what_to_do() {
        fn said(error: impl error::Error + 'static) -> String {
            let boxed: Box<dyn error::Error> = Box::new(error);
            format!("{boxed} | {boxed:?}")
        }
        assert!(said(Error::Offline(Opaque)).contains("write again"));
        assert!(said(Error::Encoding(Opaque, TOO_LARGE)).contains("value_bytes_max"));
        assert!(said(Error::<Opaque>::NetworkDown).contains("start a new one"));
        assert!(said(ClaimError::Offline(Pending::from(Opaque))).contains("claim() again"));
        assert!(said(ClaimError::<Opaque>::Unreached).contains("not initialised"));
        let init: InitError<Opaque, fmt::Error> = InitError::Init(fmt::Error);
        assert!(said(init).contains("initialiser failed"));
        assert!(said(ReadError::Offline).contains("try again"));
    }

    #[test]
    fn no_value_gets_into_a_log() {
        let secret = "hunter2".to_string();
        let errors = [
            format!("{:?}", Error::Offline(secret.clone())),
            format!("{:?}", Error::Encoding(secret.clone(), TOO_LARGE)),
            format!("{:?}", ClaimError::Offline(Pending::from(secret.clone()))),
            format!("{:?}", ClaimError::Encoding(secret, TOO_LARGE)),
        ];
        assert!(errors.iter().all(|error| !error.contains("hunter2")));
    }
}
