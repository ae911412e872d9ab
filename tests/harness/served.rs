//! What a running program says over HTTP.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::TestResult;

/// How long anything may take to show.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// What a program serves.
pub(crate) struct Served {
    pub(crate) address: String,
}

impl Served {
    /// Finds an address that nobody listens on.
    pub(crate) fn somewhere() -> TestResult<Self> {
        Ok(Self { address: TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string() })
    }

    /// Asks for `path`; returns the status and the text.
    pub(crate) fn ask(&self, path: &str) -> TestResult<(u16, String)> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(LIMIT))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, text) = answer.split_once("\r\n\r\n").ok_or("half an answer")?;
        let status = head.split(' ').nth(1).ok_or("no status")?.parse()?;
        Ok((status, text.to_owned()))
    }

    /// Asks for `path` until the answer `holds`; a listener that is not there yet is waited for, too.
    pub(crate) fn wait(&self, path: &str, holds: impl Fn(u16, &str) -> bool) -> TestResult<String> {
        let begun = Instant::now();
        loop {
            let answer = self.ask(path);
            match &answer {
                Ok((status, text)) if holds(*status, text) => return Ok(text.clone()),
                _ if begun.elapsed() > LIMIT => {
                    let shown = format!("{answer:?}");
                    return Err(format!("{path} still says {shown:.2000}").into());
                }
                _ => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }
}

/// Returns the sum of the series of a family whose labels hold all of `labels`; `None` where there is no such series.
pub(crate) fn sum(metrics: &str, family: &str, labels: &[&str]) -> Option<f64> {
    let of_family = |line: &&str| line.starts_with(&format!("{family}{{"));
    let series = metrics.lines().filter(of_family).filter(|line| labels.iter().all(|label| line.contains(label)));
    let values: Vec<f64> = series.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}
