//! Both clients against a server that misbehaves on purpose.
#![allow(clippy::unwrap_used, reason = "a test; helpers outside #[test] functions count as well")]

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use zixt_hsm_protocol::{
    BlockingHsmClient, ClientError, CustodyError, HsmClient, Pin, Request, Response, decode, encode,
    read_frame_blocking, write_frame_blocking,
};

static SOCKETS: AtomicUsize = AtomicUsize::new(0);

fn socket() -> PathBuf {
    let n = SOCKETS.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("zixt-protocol-{}-{n}.sock", std::process::id()))
}

/// Answers `per_connection` requests on each connection, then closes it.
fn serve(per_connection: usize) -> PathBuf {
    let path = socket();
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                for _ in 0..per_connection {
                    let Ok(frame) = read_frame_blocking(&mut stream) else { return };
                    let answer = match decode::<Request>(&frame).unwrap() {
                        Request::SignTls { content } => Response::TlsSignature(content),
                        Request::Lock => Response::TlsSignature(vec![]),
                        _ => Response::Error(CustodyError::Locked),
                    };
                    write_frame_blocking(&mut stream, &encode(&answer)).unwrap();
                }
            });
        }
    });
    path
}

#[tokio::test]
async fn the_async_client_replaces_connections_that_the_daemon_closed() {
    let client = HsmClient::new(serve(3));
    for n in 0..20u8 {
        assert_eq!(client.sign_tls(&[n]).await.unwrap(), [n]);
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert!(matches!(client.unseal_row_key().await, Err(ClientError::Custody(CustodyError::Locked))));
    assert!(matches!(client.lock().await, Err(ClientError::Unexpected)));
    let many = (0..32u8).map(|n| {
        let client = &client;
        async move { assert_eq!(client.sign_tls(&[n]).await.unwrap(), [n]) }
    });
    let mut tasks: Vec<_> = many.map(Box::pin).collect();
    for task in &mut tasks {
        task.await;
    }
}

#[test]
fn the_blocking_client_replaces_connections_and_serves_many_threads() {
    let client = BlockingHsmClient::new(serve(3));
    std::thread::scope(|scope| {
        for thread in 0..8u8 {
            let client = &client;
            scope.spawn(move || {
                for n in 0..20u8 {
                    assert_eq!(client.sign_tls(&[thread, n]).unwrap(), [thread, n]);
                }
            });
        }
    });
    assert!(matches!(client.status(), Err(ClientError::Custody(CustodyError::Locked))));
}

/// Says no and closes before it reads anything, as the daemon does with peers that it does not know.
fn serve_nobody() -> PathBuf {
    let path = socket();
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = encode(&Response::Error(CustodyError::Busy));
            write_frame_blocking(&mut stream.unwrap(), &answer).unwrap();
        }
    });
    path
}

#[tokio::test]
async fn an_answer_before_the_question_is_read_reaches_the_caller() {
    let path = serve_nobody();
    for _ in 0..200 {
        let answer = HsmClient::new(&path).status().await;
        assert!(matches!(answer, Err(ClientError::Custody(CustodyError::Busy))), "{answer:?}");
        let answer = BlockingHsmClient::new(&path).status();
        assert!(matches!(answer, Err(ClientError::Custody(CustodyError::Busy))), "{answer:?}");
    }
}

#[tokio::test]
async fn an_absent_daemon_is_an_error_with_advice() {
    let path = socket();
    let error = HsmClient::new(&path).status().await.unwrap_err();
    assert!(matches!(&error, ClientError::Connect { .. }), "{error}");
    assert_eq!((error.code(), error.advice().is_empty()), ("custody-unreachable", false));
    let error = BlockingHsmClient::new(&path).unlock(Pin::new("1234".into()).unwrap()).unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }));
}
