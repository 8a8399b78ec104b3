//! A TCP proxy that breaks connections on demand: what a network does to a bucket.

use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

/// How the network behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Everything passes.
    Fine,
    /// Nobody listens: new connections are refused, old ones are cut.
    Refuse,
    /// Connections open and nothing ever comes through, on old ones neither.
    Hang,
    /// Every answer is cut after so many bytes.
    Cut {
        /// Bytes of the answers on one connection that still pass.
        after_bytes: u64,
    },
    /// Every piece of data waits so long in each direction.
    Slow(Duration),
}

/// A proxy on a free port of the loopback interface, in [`Weather::Fine`] at first. Dropping it refuses everything.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    runtime: Option<Runtime>,
}

impl Proxy {
    /// A proxy in front of `upstream`.
    pub fn start(upstream: SocketAddr) -> Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).context("no free port")?;
        let address = listener.local_addr()?;
        let (weather, changes) = watch::channel(Weather::Fine);
        runtime.spawn(serve(listener, address, upstream, changes));
        Ok(Self { address, weather, runtime: Some(runtime) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the weather, for open connections too.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(
    listener: TcpListener,
    address: SocketAddr,
    upstream: SocketAddr,
    mut changes: watch::Receiver<Weather>,
) -> Result<()> {
    let mut listener = Some(listener);
    loop {
        let now = *changes.borrow_and_update();
        if now == Weather::Refuse {
            listener = None;
            changes.changed().await?;
            continue;
        }
        let open = match listener.take() {
            Some(open) => open,
            None => TcpListener::bind(address).await?,
        };
        tokio::select! {
            changed = changes.changed() => changed?,
            Ok((client, _)) = open.accept() => {
                tokio::spawn(connection(client, upstream, changes.clone()));
            }
        }
        listener = Some(open);
    }
}

async fn connection(client: TcpStream, upstream: SocketAddr, mut changes: watch::Receiver<Weather>) -> Result<()> {
    let answers = changes.clone();
    let cut = async move {
        while *changes.borrow_and_update() != Weather::Refuse {
            changes.changed().await?;
        }
        Ok(())
    };
    tokio::select! {
        done = both_ways(client, upstream, answers) => done,
        cut = cut => cut,
    }
}

async fn both_ways(client: TcpStream, upstream: SocketAddr, weather: watch::Receiver<Weather>) -> Result<()> {
    hold_while_hanging(&mut weather.clone()).await?;
    let server = TcpStream::connect(upstream).await?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let asks = pump(from_client, to_server, weather.clone(), Direction::Ask);
    let answers = pump(from_server, to_client, weather, Direction::Answer);
    tokio::try_join!(asks, answers)?;
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Ask,
    Answer,
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    direction: Direction,
) -> Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut passed = 0;
    loop {
        let mut n = from.read(&mut buffer).await?;
        if n == 0 {
            to.shutdown().await?;
            return Ok(());
        }
        hold_while_hanging(&mut weather).await?;
        let now = *weather.borrow_and_update();
        if let Weather::Slow(delay) = now {
            tokio::time::sleep(delay).await;
        }
        if let (Weather::Cut { after_bytes }, Direction::Answer) = (now, direction) {
            n = n.min((after_bytes - passed.min(after_bytes)) as usize);
        }
        to.write_all(&buffer[..n]).await?;
        passed += n as u64;
        if let (Weather::Cut { after_bytes }, Direction::Answer) = (now, direction)
            && passed >= after_bytes
        {
            anyhow::bail!("cut");
        }
    }
}

async fn hold_while_hanging(weather: &mut watch::Receiver<Weather>) -> Result<()> {
    while *weather.borrow_and_update() == Weather::Hang {
        weather.changed().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener as StdListener, TcpStream as StdStream};
    use std::thread;

    /// Answers every connection's first 4 bytes with 100,000 bytes.
    fn upstream() -> SocketAddr {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut ask = [0; 4];
                if stream.read_exact(&mut ask).is_ok() {
                    let _ = stream.write_all(&vec![7; 100_000]);
                }
            }
        });
        address
    }

    fn ask(proxy: &Proxy) -> std::io::Result<usize> {
        let mut stream = StdStream::connect(proxy.address())?;
        stream.set_read_timeout(Some(Duration::from_millis(300)))?;
        stream.write_all(b"ping")?;
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => Ok(answer.len()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(answer.len()),
            Err(error) => Err(error),
        }
    }

    #[test]
    fn each_weather_does_what_it_says_and_passes() {
        let proxy = Proxy::start(upstream()).unwrap();
        assert_eq!(ask(&proxy).unwrap(), 100_000);
        proxy.set(Weather::Refuse);
        let refused = || matches!(ask(&proxy), Err(error) if error.kind() == ErrorKind::ConnectionRefused);
        for _ in 0..100 {
            if refused() {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        assert!(refused());
        proxy.set(Weather::Hang);
        let hangs = || matches!(ask(&proxy), Err(error) if error.kind() == ErrorKind::WouldBlock);
        for _ in 0..100 {
            if hangs() {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        assert!(hangs());
        proxy.set(Weather::Cut { after_bytes: 1234 });
        assert_eq!(ask(&proxy).unwrap(), 1234);
        proxy.set(Weather::Slow(Duration::from_millis(5)));
        assert_eq!(ask(&proxy).unwrap(), 100_000);
        proxy.set(Weather::Fine);
        assert_eq!(ask(&proxy).unwrap(), 100_000);
    }

    #[test]
    fn bad_weather_reaches_open_connections() {
        let proxy = Proxy::start(upstream()).unwrap();
        let mut stream = StdStream::connect(proxy.address()).unwrap();
        stream.write_all(b"pi").unwrap();
        thread::sleep(Duration::from_millis(50));
        proxy.set(Weather::Refuse);
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut byte = [0];
        let end = stream.read(&mut byte);
        assert!(matches!(end, Ok(0)) || end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
    }
}
