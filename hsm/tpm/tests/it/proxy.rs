//! What sits on the bus: a proxy between the software stack and the simulator that records, changes, stalls or cuts.

use crate::swtpm::{free_ports, tcti};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Bytes of the header of a command or an answer: tag, size, code.
const HEADER_BYTES: usize = 10;

/// What happens to a command or an answer.
pub enum Action {
    Pass,
    /// Both sides lose their connection.
    Cut,
    /// Nothing moves any more.
    Stall,
}

/// Sees each command (`true`) and answer with the number of the command since the start, and may change the bytes.
pub type Hook = Box<dyn FnMut(bool, usize, &mut Vec<u8>) -> Action + Send>;

/// The code of a command.
pub fn code(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[6..10].try_into().unwrap())
}

pub struct Proxy {
    port: u16,
    wire: Arc<Mutex<Vec<u8>>>,
}

impl Proxy {
    /// Starts between the simulator at `port` and whoever connects.
    pub fn start(port: u16, hook: Hook) -> Self {
        let (data, control) = free_ports();
        let own = data.local_addr().unwrap().port();
        let wire = Arc::new(Mutex::new(Vec::new()));
        let hook = Arc::new(Mutex::new((hook, 0)));
        let (recorded, seen) = (wire.clone(), hook);
        std::thread::spawn(move || {
            for client in data.incoming().flatten() {
                let (wire, hook) = (recorded.clone(), seen.clone());
                std::thread::spawn(move || frames(client, port, &wire, &hook));
            }
        });
        std::thread::spawn(move || pass_control(control, port + 1));
        Self { port: own, wire }
    }

    /// Only records.
    pub fn recorder(port: u16) -> Self {
        Self::start(port, Box::new(|_, _, _| Action::Pass))
    }

    pub fn tcti(&self) -> String {
        tcti(self.port)
    }

    /// Every byte so far, of both directions.
    pub fn wire(&self) -> Vec<u8> {
        self.wire.lock().unwrap().clone()
    }
}

/// Passes whole commands and answers.
fn frames(mut client: TcpStream, port: u16, wire: &Mutex<Vec<u8>>, hook: &Mutex<(Hook, usize)>) {
    let Ok(mut tpm) = TcpStream::connect(("127.0.0.1", port)) else { return };
    let forward = |is_command: bool, from: &mut TcpStream, to: &mut TcpStream| -> Option<()> {
        let mut frame = vec![0; HEADER_BYTES];
        from.read_exact(&mut frame).ok()?;
        let size = u32::from_be_bytes(frame[2..6].try_into().unwrap()) as usize;
        frame.resize(size.max(HEADER_BYTES), 0);
        from.read_exact(&mut frame[HEADER_BYTES..]).ok()?;
        let action = {
            let mut hook = hook.lock().unwrap_or_else(PoisonError::into_inner);
            if is_command {
                hook.1 += 1;
            }
            let number = hook.1;
            (hook.0)(is_command, number, &mut frame)
        };
        match action {
            Action::Pass => {}
            Action::Cut => return None,
            Action::Stall => loop {
                // Until the client is gone.
                match from.peek(&mut [0]) {
                    Ok(0) | Err(_) => return None,
                    Ok(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            },
        }
        wire.lock().unwrap().extend_from_slice(&frame);
        to.write_all(&frame).ok()
    };
    while forward(true, &mut client, &mut tpm).is_some() && forward(false, &mut tpm, &mut client).is_some() {}
    let _ = client.shutdown(Shutdown::Both);
    let _ = tpm.shutdown(Shutdown::Both);
}

/// The control channel carries no commands of the TPM.
fn pass_control(listener: TcpListener, port: u16) {
    for client in listener.incoming().flatten() {
        let Ok(tpm) = TcpStream::connect(("127.0.0.1", port)) else { continue };
        for (mut from, mut to) in [(client.try_clone().unwrap(), tpm.try_clone().unwrap()), (tpm, client)] {
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
    }
}
