//! The parser's process: confines itself, reads one question, writes one answer, ends.

use std::io::{Read, Write};
use thiserror::Error;
use zeroize::Zeroizing;

use super::confine::{ConfineError, confine};
use super::engine;
use super::wire::{ANSWER_BYTES_MAX, QUESTION_BYTES_MAX, Question, frame};

/// Why there is no answer. The appliance sees only that there is none, and refuses the sign-in.
#[derive(Debug, Error)]
pub enum ChildError {
    /// The cryptography does not start.
    #[error("the cryptography does not start")]
    Cryptography,
    /// It could not be confined.
    #[error(transparent)]
    Confine(#[from] ConfineError),
    /// The pipes.
    #[error("the appliance does not listen")]
    Pipe(#[from] std::io::Error),
    /// The question is too long, or none.
    #[error("this is no question")]
    Question,
    /// The answer is too long.
    #[error("the answer is too long")]
    Answer,
}

/// Runs it on these pipes.
///
/// # Errors
/// [`ChildError`]
pub fn run(input: &mut dyn Read, output: &mut dyn Write) -> Result<(), ChildError> {
    // Before the process is confined: it looks at the processor, and draws its first random bytes.
    saml_rs::initialize_crypto_provider().map_err(|_| ChildError::Cryptography)?;
    confine()?;
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(|_| ChildError::Question)?;
    if length > QUESTION_BYTES_MAX {
        return Err(ChildError::Question);
    }
    let mut question = Zeroizing::new(vec![0; length]);
    input.read_exact(&mut question)?;
    let question: Question = minicbor::decode(&question).map_err(|_| ChildError::Question)?;
    let answer = minicbor::to_vec(engine::answer(&question)).map_err(|_| ChildError::Answer)?;
    if answer.len() > ANSWER_BYTES_MAX {
        return Err(ChildError::Answer);
    }
    output.write_all(&frame(&answer))?;
    output.flush()?;
    Ok(())
}
