//! Frames: a big-endian length of four bytes, then that many bytes.

use std::io::{self, Read, Write};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;
use zixt_types::limits;

/// Longest message: the end of a recovery, with the approvals of as many officers as a network may have, and a released share
/// of each. Nothing is allocated for a longer one.
pub const FRAME_BYTES_MAX: usize = limits::TRANSCRIPT_BYTES_MAX
    + limits::GENESIS_KEYS_MAX * (limits::SHARE_RELEASE_BYTES_MAX + LENGTH_BYTES_MAX)
    + 1024;
/// Longest message of who only signs, looks and unlocks: a genesis is the longest.
pub const FRAME_BYTES_SMALL: usize = 256 * 1024;
/// Bytes before a byte string.
const LENGTH_BYTES_MAX: usize = 8;

/// Why a frame was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer closed the connection between two frames.
    #[error("the connection was closed")]
    Closed,
    /// The peer announced more than the protocol allows.
    #[error("a frame of {got} bytes was announced; at most {max} are allowed")]
    TooLong {
        /// Bytes announced.
        got: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The peer announced nothing.
    #[error("an empty frame was announced")]
    Empty,
    /// The connection broke or timed out.
    #[error("the connection broke")]
    Io(#[from] io::Error),
}

impl FrameError {
    /// Whether the peer closed the connection, which may still hold what the peer said last.
    pub(crate) fn is_hang_up(&self) -> bool {
        matches!(self, Self::Io(error)
            if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset))
    }
}

fn length(prefix: [u8; 4], max: usize) -> Result<usize, FrameError> {
    let got = usize::try_from(u32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
    match got {
        0 => Err(FrameError::Empty),
        _ if got <= max => Ok(got),
        _ => Err(FrameError::TooLong { got, max }),
    }
}

/// Length and payload in one buffer, so that a frame is one write.
fn framed(payload: &[u8]) -> Result<Zeroizing<Vec<u8>>, FrameError> {
    let too_long = || FrameError::TooLong { got: payload.len(), max: FRAME_BYTES_MAX };
    if payload.len() > FRAME_BYTES_MAX {
        return Err(too_long());
    }
    let length = u32::try_from(payload.len()).map_err(|_| too_long())?;
    let mut frame = Zeroizing::new(Vec::with_capacity(4 + payload.len()));
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(payload);
    Ok(frame)
}

/// Reads one frame.
///
/// # Errors
/// See [`FrameError`]; the connection is of no use afterwards.
pub fn read_frame_blocking(stream: &mut impl Read) -> Result<Zeroizing<Vec<u8>>, FrameError> {
    read_frame_within(stream, FRAME_BYTES_MAX)
}

/// Reads one frame of at most so many bytes; for a longer one nothing is allocated.
///
/// # Errors
/// See [`FrameError`]; the connection is of no use afterwards.
pub fn read_frame_within(stream: &mut impl Read, max: usize) -> Result<Zeroizing<Vec<u8>>, FrameError> {
    let mut prefix = [0; 4];
    let mut filled = 0;
    while filled < prefix.len() {
        match stream.read(&mut prefix[filled..]) {
            Ok(0) if filled == 0 => return Err(FrameError::Closed),
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut payload = Zeroizing::new(vec![0; length(prefix, max)?]);
    stream.read_exact(&mut payload)?;
    Ok(payload)
}

/// Writes one frame.
///
/// # Errors
/// See [`FrameError`]; the connection is of no use afterwards.
pub fn write_frame_blocking(stream: &mut impl Write, payload: &[u8]) -> Result<(), FrameError> {
    stream.write_all(&framed(payload)?)?;
    Ok(())
}

/// Reads one frame.
///
/// # Errors
/// See [`FrameError`]; the connection is of no use afterwards.
pub async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> Result<Zeroizing<Vec<u8>>, FrameError> {
    let mut prefix = [0; 4];
    let mut filled = 0;
    while filled < prefix.len() {
        match stream.read(&mut prefix[filled..]).await? {
            0 if filled == 0 => return Err(FrameError::Closed),
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            more => filled += more,
        }
    }
    let mut payload = Zeroizing::new(vec![0; length(prefix, FRAME_BYTES_MAX)?]);
    stream.read_exact(&mut payload).await?;
    Ok(payload)
}

/// Writes one frame.
///
/// # Errors
/// See [`FrameError`]; the connection is of no use afterwards.
pub async fn write_frame(stream: &mut (impl AsyncWrite + Unpin), payload: &[u8]) -> Result<(), FrameError> {
    stream.write_all(&framed(payload)?).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_round_trip_and_follow_each_other(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 1..5)
        ) {
            let mut wire = Vec::new();
            for frame in &frames {
                write_frame_blocking(&mut wire, frame).unwrap();
            }
            let mut wire = wire.as_slice();
            for frame in &frames {
                let read = read_frame_blocking(&mut wire).unwrap();
                prop_assert_eq!(read.as_slice(), frame.as_slice());
            }
            prop_assert!(matches!(read_frame_blocking(&mut wire), Err(FrameError::Closed)));
        }

        #[test]
        fn any_prefix_is_an_error_not_a_panic(wire in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = read_frame_blocking(&mut wire.as_slice());
        }
    }

    #[test]
    fn a_length_beyond_the_bound_is_refused_before_anything_is_allocated() {
        let mut wire = &[0xFF, 0xFF, 0xFF, 0xFF, 0x00][..];
        assert!(matches!(read_frame_blocking(&mut wire), Err(FrameError::TooLong { .. })));
        let mut wire = &[0, 0, 0, 0][..];
        assert!(matches!(read_frame_blocking(&mut wire), Err(FrameError::Empty)));
        assert!(write_frame_blocking(&mut Vec::new(), &vec![0; FRAME_BYTES_MAX + 1]).is_err());
    }
}
