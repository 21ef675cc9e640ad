//! Starts the parser's process, asks it one question, and ends it.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::wire::{ANSWER_BYTES_MAX, Answer, QUESTION_BYTES_MAX, Question, frame};

/// From the start of the process to its answer; it is killed then. Its own limit of processor time is shorter.
pub const PROCESS_TIME_MAX: Duration = Duration::from_secs(15);
/// Processes at once. Others wait for their turn within [`PROCESS_TIME_MAX`].
pub const PROCESSES_MAX: usize = 4;

/// Why there is no answer: the sign-in is refused.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// The program cannot be started.
    #[error("the parser's process cannot be started")]
    Start(#[source] std::io::Error),
    /// It took too long, or had to wait for too long. It was killed.
    #[error("the parser did not answer within {} s", PROCESS_TIME_MAX.as_secs())]
    Slow,
    /// A stranger's message has to wait, and does not.
    #[error("the parser is busy with another stranger's message")]
    Busy,
    /// It ended without an answer: it crashed, or reached one of its limits.
    #[error("the parser ended without an answer")]
    Ended,
    /// The question is longer than the process would read.
    #[error("the message is too long")]
    TooLong,
    /// What it wrote is no answer.
    #[error("the parser's answer is none")]
    Answer,
}

/// Where the program is, and how many of it may run.
#[derive(Debug)]
pub(crate) struct Parser {
    program: PathBuf,
    turns: Semaphore,
    /// For messages that anybody can send, which are not to take the turns of people who sign in.
    strangers: Semaphore,
}

impl Parser {
    pub(crate) fn new(program: PathBuf) -> Self {
        Self { program, turns: Semaphore::new(PROCESSES_MAX), strangers: Semaphore::new(1) }
    }

    pub(crate) async fn ask(&self, question: &Question, from_stranger: bool) -> Result<Answer, ProcessError> {
        let question = Zeroizing::new(minicbor::to_vec(question).map_err(|_| ProcessError::Answer)?);
        if question.len() > QUESTION_BYTES_MAX {
            return Err(ProcessError::TooLong);
        }
        let _stranger = match from_stranger {
            true => Some(self.strangers.try_acquire().map_err(|_| ProcessError::Busy)?),
            false => None,
        };
        tokio::time::timeout(PROCESS_TIME_MAX, self.exchange(&question))
            .await
            .map_err(|_| ProcessError::Slow)?
    }

    async fn exchange(&self, question: &[u8]) -> Result<Answer, ProcessError> {
        let _turn = self.turns.acquire().await.map_err(|_| ProcessError::Ended)?;
        let mut child = Command::new(&self.program)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Also if this future is dropped, at the time-out.
            .kill_on_drop(true)
            .spawn()
            .map_err(ProcessError::Start)?;
        let (Some(mut input), Some(mut output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(ProcessError::Ended);
        };
        let question = frame(question);
        input.write_all(&question).await.map_err(|_| ProcessError::Ended)?;
        drop(input);
        let length = output.read_u32().await.map_err(|_| ProcessError::Ended)?;
        let length = usize::try_from(length).ok().filter(|length| *length <= ANSWER_BYTES_MAX);
        let mut answer = vec![0; length.ok_or(ProcessError::Answer)?];
        output.read_exact(&mut answer).await.map_err(|_| ProcessError::Ended)?;
        let status = child.wait().await.map_err(|_| ProcessError::Ended)?;
        if !status.success() {
            return Err(ProcessError::Ended);
        }
        minicbor::decode(&answer).map_err(|_| ProcessError::Answer)
    }
}
