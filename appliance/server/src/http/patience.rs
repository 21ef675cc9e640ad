//! A connection whose other end reads too slowly is closed, so that what waits to be sent does not take memory, and a
//! place, for hours.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How slowly the other end may read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// In each such time it takes what there is,
    pub window: Duration,
    /// or so many bytes.
    pub bytes_min: usize,
}

/// A stream that fails with [`io::ErrorKind::TimedOut`] when what was written is taken more slowly than its [`Pace`].
pub(super) struct Patient<I> {
    inner: I,
    pace: Pace,
    /// Since something had to wait, and nothing was gone.
    waiting: Option<Window>,
}

struct Window {
    end: Pin<Box<Sleep>>,
    /// What was taken in it.
    bytes: usize,
}

impl<I> Patient<I> {
    pub fn new(inner: I, pace: Pace) -> Self {
        Self { inner, pace, waiting: None }
    }

    /// What cannot go on now has to go on in time.
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let Pace { window, bytes_min } = self.pace;
        let waiting = self
            .waiting
            .get_or_insert_with(|| Window { end: Box::pin(tokio::time::sleep(window)), bytes: 0 });
        loop {
            ready!(waiting.end.as_mut().poll(context));
            if waiting.bytes < bytes_min {
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            *waiting = Window { end: Box::pin(tokio::time::sleep(window)), bytes: 0 };
        }
    }

    fn judge<T>(&mut self, context: &mut Context<'_>, progress: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if progress.is_pending() { self.wait(context).map(Err) } else { progress }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Patient<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Patient<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.inner).poll_write(context, bytes);
        if let (Poll::Ready(Ok(taken)), Some(waiting)) = (&progress, &mut self.waiting) {
            waiting.bytes = waiting.bytes.saturating_add(*taken);
        }
        self.judge(context, progress)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.inner).poll_flush(context);
        if progress.is_ready() {
            // Everything is gone.
            self.waiting = None;
        }
        self.judge(context, progress)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.inner).poll_shutdown(context);
        self.judge(context, progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    const PACE: Pace = Pace { window: Duration::from_secs(20), bytes_min: 1000 };

    /// How long it took until so many bytes were taken, or until the reader was given up, who reads so many at once and
    /// then pauses.
    async fn write(bytes: usize, at_once: usize, pause: u64) -> (io::Result<()>, u64) {
        let (ours, mut theirs) = tokio::io::duplex(16);
        let reader = tokio::spawn(async move {
            let mut buffer = vec![0; at_once];
            while theirs.read_exact(&mut buffer).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(pause)).await;
            }
        });
        let before = Instant::now();
        let mut ours = Patient::new(ours, PACE);
        let written = async {
            ours.write_all(&vec![0; bytes]).await?;
            ours.flush().await
        };
        let written = written.await;
        reader.abort();
        (written, before.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_is_too_slow_is_given_up_whatever_it_takes() {
        // Takes much and stops: what was taken counts for its window.
        let (given_up, seconds) = write(5000, 4000, 1000).await;
        assert_eq!((given_up.unwrap_err().kind(), seconds), (io::ErrorKind::TimedOut, 40));
        // A byte now and then was progress, and went on for hours.
        let (given_up, seconds) = write(5000, 1, 10).await;
        assert_eq!((given_up.unwrap_err().kind(), seconds), (io::ErrorKind::TimedOut, 20));
        // As slowly as may be: for as long as it takes.
        let (written, seconds) = write(20_000, 100, 2).await;
        written.unwrap();
        assert!(seconds > 350, "{seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_taken_at_once_is_not_measured() {
        let (ours, mut theirs) = tokio::io::duplex(16);
        let mut ours = Patient::new(ours, PACE);
        let mut buffer = [0; 8];
        for _ in 0..10 {
            ours.write_all(&[0; 8]).await.unwrap();
            ours.flush().await.unwrap();
            // Nobody writes for a long time, and nobody has to read.
            tokio::time::sleep(Duration::from_secs(100)).await;
            theirs.read_exact(&mut buffer).await.unwrap();
        }
    }
}
