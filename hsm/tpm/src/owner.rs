//! The thread that owns the connection. Callers hand it jobs over a channel and wait for the answer.

use crate::error::TpmError;
use crate::link::{Link, is_simulator};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Where the TPM is, if nothing else is configured: behind the kernel's resource manager.
pub const TCTI_DEFAULT: &str = "device:/dev/tpmrm0";

/// How long a job may take. A discrete TPM needs seconds for a key; nothing here needs half a minute.
const PATIENCE: Duration = Duration::from_secs(30);

type Job = Box<dyn FnOnce(&mut Owner) + Send>;

/// A TPM. Made without touching it; the first job connects, and a job after a broken connection connects again.
///
/// On a simulator each job connects anew, so that nothing is kept in it between jobs. The software stack opens files and
/// sockets without close-on-exec: a process that uses this must not start programs.
///
/// Clones share the owner, so that their jobs follow each other. A job whose caller gave up is not begun any more.
#[derive(Debug, Clone)]
pub struct Tpm(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    tcti: String,
    patience: Duration,
    jobs: Mutex<Option<Sender<Job>>>,
    thread: Option<JoinHandle<()>>,
    /// The last job got no answer in time.
    stuck: AtomicBool,
}

impl Tpm {
    /// A TPM by its TCTI: `device:/dev/tpmrm0`, `swtpm:host=127.0.0.1,port=2321`.
    ///
    /// # Errors
    /// [`TpmError::OwnerGone`] if the system gives no thread.
    pub fn new(tcti: &str) -> Result<Self, TpmError> {
        Self::with_patience(tcti, PATIENCE)
    }

    /// [`Tpm::new`] with another time that a call waits for its answer.
    ///
    /// # Errors
    /// [`TpmError::OwnerGone`] if the system gives no thread.
    pub fn with_patience(tcti: &str, patience: Duration) -> Result<Self, TpmError> {
        let (jobs, inbox) = channel();
        let owner = Owner { tcti: tcti.to_owned(), link: None, given_up: Arc::default() };
        let thread = std::thread::Builder::new()
            .name("tpm".to_owned())
            .spawn(move || serve(owner, &inbox))
            .map_err(|_| TpmError::OwnerGone)?;
        Ok(Self(Arc::new(Shared {
            tcti: tcti.to_owned(),
            patience,
            jobs: Mutex::new(Some(jobs)),
            thread: Some(thread),
            stuck: AtomicBool::new(false),
        })))
    }

    /// The TCTI that it was made with.
    #[must_use]
    pub fn tcti(&self) -> &str {
        &self.0.tcti
    }

    /// Hands a job to the owner and waits. Secrets in a job are the job's to erase.
    pub(crate) fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Owner) -> Result<T, TpmError> + Send + 'static,
    ) -> Result<T, TpmError> {
        let (reply, answer) = sync_channel(1);
        let given_up = Arc::new(AtomicBool::new(false));
        let of_job = Arc::clone(&given_up);
        let job: Job = Box::new(move |owner: &mut Owner| {
            // Nobody knows any more what it would change.
            if of_job.load(Ordering::SeqCst) {
                return;
            }
            owner.given_up = of_job;
            // The caller may have given up waiting.
            let _ = reply.send(owner.run(job));
        });
        let shared = &*self.0;
        let jobs = shared.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        jobs.ok_or(TpmError::OwnerGone)?.send(job).map_err(|_| TpmError::OwnerGone)?;
        let answered = answer.recv_timeout(shared.patience);
        let timed_out = matches!(answered, Err(RecvTimeoutError::Timeout));
        given_up.store(timed_out, Ordering::SeqCst);
        shared.stuck.store(timed_out, Ordering::Relaxed);
        match answered {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => Err(TpmError::NoAnswer { seconds: shared.patience.as_secs() }),
            Err(RecvTimeoutError::Disconnected) => Err(TpmError::OwnerGone),
        }
    }
}

impl Drop for Shared {
    /// Waits until the connection is closed and its sessions and objects are flushed; not for a TPM that hangs.
    fn drop(&mut self) {
        *self.jobs.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(thread) = self.thread.take().filter(|_| !self.stuck.load(Ordering::Relaxed)) {
            let _ = thread.join();
        }
    }
}

fn serve(mut owner: Owner, inbox: &Receiver<Job>) {
    while let Ok(job) = inbox.recv() {
        job(&mut owner);
    }
}

/// What the thread owns.
pub(crate) struct Owner {
    pub(crate) tcti: String,
    link: Option<Link>,
    /// The caller of the present job does not wait for it any more.
    given_up: Arc<AtomicBool>,
}

impl Owner {
    /// The open connection, or a new one.
    pub(crate) fn link(&mut self) -> Result<&mut Link, TpmError> {
        match &mut self.link {
            Some(link) => Ok(link),
            none => Ok(none.insert(Link::open(&self.tcti)?)),
        }
    }

    /// Says whether the caller still waits: asked right before what cannot be taken back.
    pub(crate) fn given_up(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.given_up)
    }

    /// Closes the connection, so that another may be opened.
    pub(crate) fn disconnect(&mut self) {
        self.link = None;
    }

    fn run<T>(&mut self, job: impl FnOnce(&mut Self) -> Result<T, TpmError>) -> Result<T, TpmError> {
        let outcome = job(self).map_err(|error| self.named(error));
        let broken = outcome.as_ref().is_err_and(TpmError::ends_connection);
        if broken || is_simulator(&self.tcti) {
            self.disconnect();
        }
        outcome
    }

    /// Adds what only the owner knows.
    fn named(&self, error: TpmError) -> TpmError {
        match error {
            TpmError::TpmAbsent { tcti, why } if tcti.is_empty() => {
                TpmError::TpmAbsent { tcti: self.tcti.clone(), why }
            }
            error => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever was told that there is no answer must not find later that something changed.
    #[test]
    fn a_job_that_was_given_up_is_not_begun_and_one_that_runs_can_tell() {
        let tpm = Tpm::with_patience("device:/nowhere", Duration::from_millis(100)).unwrap();
        let (told, begun) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (tells, begins) = (Arc::clone(&told), Arc::clone(&begun));
        let hangs = tpm.call(move |owner| {
            std::thread::sleep(Duration::from_millis(500));
            tells.store(owner.given_up().load(Ordering::SeqCst), Ordering::SeqCst);
            Ok(())
        });
        assert!(matches!(hangs, Err(TpmError::NoAnswer { .. })), "{hangs:?}");
        let waits = tpm.clone().call(move |_| {
            begins.store(true, Ordering::SeqCst);
            Ok(())
        });
        assert!(matches!(waits, Err(TpmError::NoAnswer { .. })), "{waits:?}");
        std::thread::sleep(Duration::from_millis(600));
        assert_eq!(tpm.call(|owner| Ok(owner.given_up().load(Ordering::SeqCst))), Ok(false));
        assert!(told.load(Ordering::SeqCst) && !begun.load(Ordering::SeqCst));
    }
}
