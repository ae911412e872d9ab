//! A stretch of network before a service that can be made to hang: connections stand, and nothing comes through.
//!
//! What a service that is stopped, overloaded or behind a dead link looks like to its clients. It knows no protocol.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::TestResult;
use super::lake::Lake;
use super::program::Program;
use super::services::Bucket;

/// How often a thread looks whether something has changed.
const TICK: Duration = Duration::from_millis(20);

const OPEN: u8 = 0;
const STALLED: u8 = 1;
const CLOSED: u8 = 2;

/// A proxy; dropped, it closes all connections.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    state: Arc<AtomicU8>,
    acceptor: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Begins to listen before the service at `upstream`, `host:port`.
    pub(crate) fn before(upstream: &str) -> TestResult<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, state, upstream) = (listener.local_addr()?, Arc::new(AtomicU8::new(OPEN)), upstream.to_owned());
        let acceptor = thread::spawn({
            let state = Arc::clone(&state);
            move || accept(&listener, &upstream, &state)
        });
        Ok(Self { address, state, acceptor: Some(acceptor) })
    }

    /// Returns where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets nothing through from now on.
    pub(crate) fn stall(&self) {
        self.state.store(STALLED, Ordering::Release);
    }

    /// Lets everything through again.
    pub(crate) fn resume(&self) {
        self.state.store(OPEN, Ordering::Release);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.store(CLOSED, Ordering::Release);
        // Wakes the acceptor up.
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            // One that panicked has failed its test by then.
            let _: thread::Result<()> = acceptor.join();
        }
    }
}

/// A program on a bucket whose server can be made to hang.
pub(crate) struct Hung {
    pub(crate) lake: Lake,
    pub(crate) proxy: Proxy,
    pub(crate) program: Program,
}

impl Hung {
    /// Begins with a server that answers.
    pub(crate) fn on(bucket: &Bucket, drain_timeout: &str) -> TestResult<Self> {
        let lake = Lake::in_bucket(bucket)?;
        let server = bucket.endpoint.strip_prefix("http://").ok_or("the bucket's server speaks TLS")?;
        let proxy = Proxy::before(server.trim_end_matches('/'))?;
        let program = Program::on(&lake)
            .with("AWS_ENDPOINT_URL", format!("http://{}", proxy.address()))
            .with("ALLUVIUM_DRAIN_TIMEOUT", drain_timeout);
        Ok(Self { lake, proxy, program })
    }
}

fn accept(listener: &TcpListener, upstream: &str, state: &Arc<AtomicU8>) {
    let mut pumps = Vec::new();
    while let Ok((client, _)) = listener.accept() {
        if state.load(Ordering::Acquire) == CLOSED {
            break;
        }
        let Ok(server) = TcpStream::connect(upstream) else { continue };
        for (from, to) in [(&client, &server), (&server, &client)] {
            if let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) {
                let state = Arc::clone(state);
                pumps.push(thread::spawn(move || pump(from, to, &state)));
            }
        }
    }
    for pump in pumps {
        // One that panicked has closed its connection, which is all it is for.
        let _: thread::Result<()> = pump.join();
    }
}

/// Carries bytes until either side ends.
fn pump(mut from: TcpStream, mut to: TcpStream, state: &AtomicU8) {
    let mut bytes = [0; 16 << 10];
    let patient = from.set_read_timeout(Some(TICK)).is_ok();
    while patient && state.load(Ordering::Acquire) != CLOSED {
        let n_bytes = match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(n_bytes) => n_bytes,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => break,
        };
        while state.load(Ordering::Acquire) == STALLED {
            thread::sleep(TICK);
        }
        if to.write_all(&bytes[..n_bytes]).is_err() {
            break;
        }
    }
    for side in [&from, &to] {
        // The other side may have closed it.
        let _: std::io::Result<()> = side.shutdown(std::net::Shutdown::Both);
    }
}
