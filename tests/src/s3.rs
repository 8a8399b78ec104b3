//! A real S3 server (SeaweedFS) of a test's own: loopback only, free ports, its data in a folder of its own.

use crate::paths::weed_binary;
use crate::process::{signal, wait_until};
use anyhow::{Context, Result, bail, ensure};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::get_object::GetObjectError;
use aws_sdk_s3::primitives::ByteStream;
use rustix::process::Signal;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// The key of the server's only user.
pub const ACCESS_KEY: &str = "cbfs-test";
/// The secret of the server's only user.
pub const SECRET_KEY: &str = "cbfs-test-secret";
/// Any region will do for the server, but one must be named.
pub const REGION: &str = "us-east-1";

const READY_LIMIT: Duration = Duration::from_secs(60);
/// Each has a port and a gRPC port, in this order.
const SERVICES: [&str; 4] = ["master", "volume", "filer", "s3"];
const PORTS: usize = 2 * SERVICES.len();

/// A server that runs until it is dropped, or until this process ends in whatever way.
#[derive(Debug)]
pub struct S3Server {
    dir: TempDir,
    ports: [u16; PORTS],
    running: Option<Running>,
    runtime: Runtime,
}

#[derive(Debug)]
struct Running {
    pid: u32,
    waiter: JoinHandle<()>,
}

impl S3Server {
    /// Starts a server and waits until it serves signed requests.
    pub fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("cbfs-s3-").tempdir()?;
        fs::create_dir(dir.path().join("data"))?;
        fs::write(dir.path().join("identities.json"), identities())?;
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let mut server = Self { dir, ports: free_ports()?, running: None, runtime };
        // Somebody else may take a port between our look and the server's start: new ports then, and not for ever.
        for _ in 0..2 {
            if server.resume_after_stop().is_ok() {
                return Ok(server);
            }
            server.stop()?;
            server.ports = free_ports()?;
        }
        server.resume_after_stop()?;
        Ok(server)
    }

    /// The address of its S3 port.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[6]))
    }

    /// The environment that a client needs, credentials and all.
    pub fn client_env() -> Vec<(String, String)> {
        let pairs = [
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
            ("AWS_REGION", REGION),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    /// Starts the server again on the same ports and data after [`Self::stop`].
    pub fn resume_after_stop(&mut self) -> Result<()> {
        ensure!(self.running.is_none(), "it runs already");
        self.running = Some(spawn(self.dir.path(), &self.ports)?);
        let ready = wait_until("the S3 server serves", READY_LIMIT, || {
            ensure!(self.running.as_ref().is_some_and(|running| !running.waiter.is_finished()), "it ended by itself");
            Ok(self.is_ready())
        });
        ready.with_context(|| format!("the server's last words:\n{}", last_words(&self.dir.path().join("log"))))
    }

    /// Ends the server; its data stay.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(running) = self.running.take() {
            signal(running.pid, Signal::KILL)?;
            running.waiter.join().map_err(|_| anyhow::anyhow!("the waiting thread panicked"))?;
        }
        Ok(())
    }

    /// Stops it in its tracks: connections open, nothing answers.
    pub fn pause(&self) -> Result<()> {
        self.send(Signal::STOP)
    }

    /// The end of [`Self::pause`].
    pub fn resume(&self) -> Result<()> {
        self.send(Signal::CONT)
    }

    fn send(&self, what: Signal) -> Result<()> {
        let Some(running) = &self.running else { bail!("the server does not run") };
        signal(running.pid, what)
    }

    /// Makes a bucket.
    pub fn create_bucket(&self, bucket: &str) -> Result<()> {
        let client = self.client();
        self.runtime.block_on(client.create_bucket().bucket(bucket).send()).context("cannot make a bucket")?;
        Ok(())
    }

    /// Names of the objects of which parts were sent and that are neither complete nor given up.
    pub fn unfinished(&self, bucket: &str) -> Result<Vec<String>> {
        let uploads = self.client().list_multipart_uploads().bucket(bucket);
        let page = self.runtime.block_on(uploads.send()).context("cannot list uploads")?;
        Ok(page.uploads().iter().filter_map(|upload| upload.key().map(str::to_owned)).collect())
    }

    /// Names and sizes of all objects of a bucket, sorted.
    pub fn list(&self, bucket: &str) -> Result<Vec<(String, u64)>> {
        let client = self.client();
        let mut found = Vec::new();
        let mut token = None;
        loop {
            let page = client.list_objects_v2().bucket(bucket).set_continuation_token(token.take());
            let page = self.runtime.block_on(page.send()).context("cannot list")?;
            for object in page.contents() {
                let name = object.key().context("an object without a name")?;
                found.push((name.to_owned(), object.size().unwrap_or_default() as u64));
            }
            token = page.next_continuation_token().map(str::to_owned);
            if token.is_none() {
                found.sort();
                return Ok(found);
            }
        }
    }

    /// The bytes of an object.
    pub fn get(&self, bucket: &str, name: &str) -> Result<Vec<u8>> {
        let client = self.client();
        self.runtime.block_on(async {
            let answer = client.get_object().bucket(bucket).key(name).send().await.context("cannot get")?;
            Ok(answer.body.collect().await?.to_vec())
        })
    }

    /// Writes or overwrites an object.
    pub fn put(&self, bucket: &str, name: &str, body: Vec<u8>) -> Result<()> {
        let client = self.client();
        let put = client.put_object().bucket(bucket).key(name).body(ByteStream::from(body));
        self.runtime.block_on(put.send()).context("cannot put")?;
        Ok(())
    }

    /// Whether it takes objects and gives them back: it lists buckets long before its volumes are there again.
    fn is_ready(&self) -> bool {
        let client = self.client();
        let probe = async {
            client.create_bucket().bucket(READY_BUCKET).send().await.ok();
            let known = client.get_object().bucket(READY_BUCKET).key("ready").send().await;
            let missing =
                |e: &SdkError<GetObjectError>| e.as_service_error().is_some_and(GetObjectError::is_no_such_key);
            match known {
                Ok(object) => object.body.collect().await.is_ok(),
                Err(error) if missing(&error) => {
                    let body = ByteStream::from_static(b"ready");
                    client.put_object().bucket(READY_BUCKET).key("ready").body(body).send().await.is_ok()
                }
                Err(_) => false,
            }
        };
        let within = async { tokio::time::timeout(Duration::from_secs(2), probe).await };
        self.runtime.block_on(within).unwrap_or(false)
    }

    fn client(&self) -> Client {
        client_at(self.address())
    }
}

/// A client of a server of this kind.
pub fn client_at(address: SocketAddr) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .endpoint_url(format!("http://{address}"))
        .credentials_provider(Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "tests"))
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .force_path_style(true)
        .build();
    Client::from_conf(config)
}

/// Holds the one object that tells whether the server is ready.
const READY_BUCKET: &str = "ready";

impl Drop for S3Server {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure.
        let _ = self.stop();
    }
}

/// Starts the server from a thread that lives as long as it does: the kernel ends it when its parent *thread* ends, so
/// that not even a killed test leaves a server behind.
fn spawn(dir: &Path, ports: &[u16; PORTS]) -> Result<Running> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(weed_binary()?).args(arguments(dir, ports));
    command.env_clear().env("HOME", dir).env("PATH", "/usr/bin:/bin").current_dir(dir);
    let log = File::options().create(true).append(true).open(dir.join("log"))?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let (tell, started) = mpsc::channel();
    let sockets = grpc_sockets(ports);
    let waiter = thread::spawn(move || match command.spawn() {
        Ok(mut child) => {
            let _ = tell.send(Ok(child.id()));
            let _ = child.wait();
            // Those of services that it did not come to start are not there.
            for socket in &sockets {
                let _ = fs::remove_file(socket);
            }
        }
        Err(error) => {
            let _ = tell.send(Err(error));
        }
    });
    let pid = started.recv()?.context("cannot start the S3 server through setpriv")?;
    Ok(Running { pid, waiter })
}

/// Where its services talk to each other; no option moves these, and a killed server leaves them.
fn grpc_sockets(ports: &[u16; PORTS]) -> Vec<PathBuf> {
    let of_services = SERVICES.iter().zip(ports.iter().skip(1).step_by(2));
    of_services.map(|(name, port)| format!("/tmp/seaweedfs-{name}-grpc-{port}.sock").into()).collect()
}

fn arguments(dir: &Path, ports: &[u16; PORTS]) -> Vec<String> {
    let names = SERVICES.iter().flat_map(|name| [format!("{name}.port"), format!("{name}.port.grpc")]);
    let mut all: Vec<String> = vec!["-logtostderr=true".into(), "server".into()];
    all.extend(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", "-master.telemetry=false"].map(String::from));
    all.extend(["-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=0"].map(String::from));
    all.extend(["-master.volumeSizeLimitMB=1024", "-master.electionTimeout=1s"].map(String::from));
    all.push(format!("-dir={}", dir.join("data").display()));
    all.push(format!("-s3.config={}", dir.join("identities.json").display()));
    // Beside its data: it runs there, and a name of a socket must be short.
    all.extend(["-filer.localSocket=filer.sock", "-s3.localSocket=s3.sock"].map(String::from));
    all.extend(names.zip(ports).map(|(name, port)| format!("-{name}={port}")));
    all
}

fn identities() -> String {
    let user = serde_json::json!({
        "name": "cbfs",
        "credentials": [{ "accessKey": ACCESS_KEY, "secretKey": SECRET_KEY }],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    });
    serde_json::json!({ "identities": [user] }).to_string()
}

fn free_ports() -> Result<[u16; PORTS]> {
    let mut held = Vec::new();
    let mut ports = [0; PORTS];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

fn last_words(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn a_server_serves_keeps_its_data_and_goes() {
        let mut server = S3Server::start().unwrap();
        server.create_bucket("one").unwrap();
        server.put("one", "a/b", b"kept".to_vec()).unwrap();
        server.pause().unwrap();
        assert!(!server.is_ready());
        server.resume().unwrap();
        let ports = server.ports;
        let with_port = || -> Vec<_> {
            let names = fs::read_dir("/tmp").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let of_server = |name: &String| ports.iter().any(|port| name.ends_with(&format!("-{port}.sock")));
            names.filter(|name| name.starts_with("seaweedfs-") && of_server(name)).collect()
        };
        assert_eq!(with_port().len(), SERVICES.len(), "{:?}", with_port());
        server.stop().unwrap();
        assert!(TcpStream::connect(server.address()).is_err());
        assert!(with_port().is_empty(), "left: {:?}", with_port());
        server.resume_after_stop().unwrap();
        assert_eq!(server.get("one", "a/b").unwrap(), b"kept");
        assert_eq!(server.list("one").unwrap(), [("a/b".to_owned(), 4)]);
        let address = server.address();
        drop(server);
        assert!(TcpStream::connect(address).is_err());
    }
}
