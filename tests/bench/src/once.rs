//! What happens once: a start, a reload, a new connection, a session that does nothing.

use std::fs;
use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chaperone_test_support::chaperone::{Chaperone, ChaperoneOptions};
use chaperone_test_support::error::{Context as _, Error};
use chaperone_test_support::guard::Guarded;
use chaperone_test_support::{Auth, Postgres, Result, clinic, http, policies};

use crate::THREE;

const TOKEN: &str = "bench-token-0123456789abcdef0123456789";
const MOST: Duration = Duration::from_secs(30);

/// Measures everything and gives a Markdown table.
///
/// # Errors
/// Something does not start.
pub fn everything(binary: &Path, idle: usize) -> Result<String> {
    let mut lines = vec![
        "| what | measured | wanted |".to_owned(),
        "| --- | ---: | ---: |".to_owned(),
    ];
    let mut add = |what: &str, measured: String, wanted: &str| {
        lines.push(format!("| {what} | {measured} | {wanted} |"));
    };
    let postgres = Postgres::options().tls().auth(Auth::Scram).start()?;
    clinic::seed(&postgres)?;
    let mut proxy = with_policies(binary, "info")?
        .target(&postgres, "clinic", &[("agent_ro", &["bench"])], "")
        .start()?;
    let (reload, slowest, usual) = reload(&proxy)?;
    add(
        "reload of three policies, from rename to effect",
        millis(reload),
        "500 ms",
    );
    add(
        "slowest statement meanwhile (without a reload)",
        format!("{} ({})", millis(slowest), millis(usual)),
        "20 ms more",
    );
    let (direct, proxied) = (connect_direct(&postgres)?, connect_proxied(&proxy)?);
    add(
        "connection, TLS and SCRAM, direct",
        format!("{:.2} ms", direct),
        "–",
    );
    add(
        "connection, TLS, SCRAM upstream",
        format!("{:.2} ms ({:.2} × direct)", proxied, proxied / direct),
        "2 × direct",
    );
    let _ = proxy.stop();
    let compiled = proxy.folder().join("audit-compiled");
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..5 {
        let _ = fs::remove_dir_all(&compiled);
        for kind in &mut times {
            kind.push(start(&proxy)?);
        }
    }
    let [cold, warm] = times.map(median);
    add("start with three policies, cold", millis(cold), "500 ms");
    add("the same with its compile cache", millis(warm), "100 ms");
    let bytes = sessions(binary, idle)?;
    add(
        &format!("memory of an idle session, of {idle}"),
        format!("{:.1} KiB", bytes / 1024.0),
        "64 KiB",
    );
    Ok(lines.join("\n"))
}

fn with_policies(binary: &Path, log: &str) -> Result<ChaperoneOptions> {
    let mut options =
        Chaperone::options(binary)
            .log(log)
            .identity("bench", TOKEN, &["bench"], "benchmark");
    for (module, settings) in THREE {
        options = options.policy(module, policies::example(module)?, settings);
    }
    Ok(options)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// From the start of the process to its first ready answer.
fn start(proxy: &Chaperone) -> Result<Duration> {
    let mut command = proxy.command(&["serve", "--config"]);
    command
        .arg(proxy.config())
        .current_dir(proxy.folder())
        .env("RUST_LOG", "warn");
    let began = Instant::now();
    let mut process = Guarded::spawn(command, "TERM", &proxy.folder().join("log"))?;
    until("the proxy is ready", || {
        TcpStream::connect(("127.0.0.1", proxy.port())).is_ok()
            && http::get(proxy.admin(), "/readyz").is_ok_and(|answer| answer.status == 200)
    })?;
    let took = began.elapsed();
    process.stop();
    Ok(took)
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let began = Instant::now();
    while !is_so() {
        if began.elapsed() > MOST {
            return Err(Error::Timeout {
                what: what.to_owned(),
                seconds: MOST.as_secs(),
                output: String::new(),
            });
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Renames new builds of all policies into place while a client sends one statement after the other:
/// until the last is in force, the slowest statement meanwhile, and the slowest of as long a time
/// before.
fn reload(proxy: &Chaperone) -> Result<(Duration, Duration, Duration)> {
    const SECTION: [u8; 6] = [0, 4, 2, b'n', b'o', b'.'];
    let folder = proxy.policy_folder();
    let stop = Arc::new(AtomicBool::new(false));
    let slowest = Arc::new(AtomicU64::new(0));
    let client = {
        let (stop, slowest) = (Arc::clone(&stop), Arc::clone(&slowest));
        let mut config = connect_options(proxy.port());
        let tls = proxy.tls();
        config.ssl_mode(tokio_postgres::config::SslMode::Require);
        std::thread::spawn(move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("start a runtime")?;
            let failed = |error: tokio_postgres::Error| Error::Program {
                program: "a client".to_owned(),
                status: "a statement failed".to_owned(),
                output: error.to_string(),
            };
            runtime.block_on(async {
                let session = chaperone_test_support::client::connect(&config, tls).await;
                let session = session.map_err(failed)?;
                let client = &session.client;
                let statement = client.prepare("SELECT 1").await.map_err(failed)?;
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    client.query(&statement, &[]).await.map_err(failed)?;
                    let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                    slowest.fetch_max(took, Ordering::Relaxed);
                }
                Ok(())
            })
        })
    };
    std::thread::sleep(Duration::from_secs(1));
    slowest.store(0, Ordering::Relaxed);
    std::thread::sleep(Duration::from_secs(1));
    let usual = slowest.swap(0, Ordering::Relaxed);
    let mut ready: Vec<(PathBuf, PathBuf)> = Vec::new();
    for (module, _) in THREE {
        let file = folder.join(format!("{module}.wasm"));
        let new = folder.join(format!(".{module}.new"));
        let mut bytes = fs::read(&file).context("read a policy")?;
        // A custom section: another file that does the same.
        bytes.extend_from_slice(&SECTION);
        fs::write(&new, bytes).context("write a policy")?;
        ready.push((new, file));
    }
    let loads = || proxy.output().matches("a policy is in force").count();
    let before = loads();
    let began = Instant::now();
    for (new, file) in ready {
        fs::rename(new, file).context("rename a policy")?;
    }
    until("the policies are in force", || {
        loads() >= before + THREE.len()
    })?;
    let took = began.elapsed();
    let meanwhile = slowest.load(Ordering::Relaxed);
    stop.store(true, Ordering::Relaxed);
    client.join().map_err(|_| Error::Program {
        program: "a client".to_owned(),
        status: "panicked".to_owned(),
        output: String::new(),
    })??;
    let micros = Duration::from_micros;
    Ok((took, micros(meanwhile), micros(usual)))
}

fn connect_options(port: u16) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(port)
        .dbname("clinic")
        .user("agent_ro")
        .password(TOKEN);
    config
}

fn connect_direct(postgres: &Postgres) -> Result<f64> {
    let file = postgres.socket_folder().join("bench-ca.pem");
    let ca = postgres.ca().map(|ca| ca.pem()).unwrap_or_default();
    fs::write(&file, ca).context("write the authority")?;
    connections(postgres.port(), &clinic::role_password("agent_ro"), &file)
}

fn connect_proxied(proxy: &Chaperone) -> Result<f64> {
    connections(proxy.port(), TOKEN, &proxy.ca_file())
}

/// The mean time of a connection in milliseconds, as pgbench has it.
fn connections(port: u16, password: &str, ca: &Path) -> Result<f64> {
    let script = ca.with_file_name("bench-one.sql");
    fs::write(&script, "SELECT 1;\n").context("write a script")?;
    let mut command = Command::new("pgbench");
    command
        .args(["-n", "-C", "-T", "5", "-c", "1", "-f"])
        .arg(&script);
    command.arg(format!(
        "host=127.0.0.1 port={port} user=agent_ro dbname=clinic password={password} \
         sslmode=verify-full sslrootcert={}",
        ca.display()
    ));
    let output = command.output().context("start pgbench")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .find_map(|line| line.strip_prefix("average connection time = "))
        .and_then(|rest| rest.split(' ').next()?.parse().ok())
        .ok_or_else(|| Error::Program {
            program: "pgbench".to_owned(),
            status: output.status.to_string(),
            output: text + &String::from_utf8_lossy(&output.stderr),
        })
}

/// Bytes of the proxy's memory for each of `count` sessions that do nothing, before a backend that
/// does nothing.
fn sessions(binary: &Path, count: usize) -> Result<f64> {
    let folder = tempfile::tempdir().context("make a folder")?;
    let listener = UnixListener::bind(folder.path().join(".s.PGSQL.5432"))
        .context("listen for the backend's clients")?;
    std::thread::spawn(move || stub(&listener));
    let proxy = with_policies(binary, "warn")?
        .plaintext()
        .toml(&format!(
            "[[targets]]\nname = \"clinic\"\nhost = {:?}\nport = 5432\n\
             [[targets.roles]]\nrole = \"agent_ro\"\ngroups = [\"bench\"]\n",
            folder.path()
        ))
        .start()?;
    let address = SocketAddr::from(([127, 0, 0, 1], proxy.port()));
    let mut open = Vec::with_capacity(count);
    // What every session shares is there with the first.
    open.push(session(address)?);
    let before = resident(proxy.process_id())?;
    for _ in 0..count {
        open.push(session(address)?);
    }
    let after = resident(proxy.process_id())?;
    drop(open);
    Ok((after - before) / count as f64)
}

fn resident(process: u32) -> Result<f64> {
    let file = format!("/proc/{process}/status");
    let text = fs::read_to_string(&file).context(format!("read {file}"))?;
    let kibibytes = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().split(' ').next()?.parse::<f64>().ok());
    Ok(kibibytes.unwrap_or(f64::NAN) * 1024.0)
}

/// Starts a session and waits until it is ready.
fn session(address: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).context("connect")?;
    let mut startup = Vec::from([0, 3, 0, 0]);
    startup.extend_from_slice(b"user\0agent_ro\0database\0clinic\0\0");
    let mut message = Vec::from(length(startup.len() + 4));
    message.extend_from_slice(&startup);
    stream.write_all(&message).context("send the startup")?;
    let mut message = vec![b'p'];
    message.extend_from_slice(&length(TOKEN.len() + 5));
    message.extend_from_slice(TOKEN.as_bytes());
    message.push(0);
    stream.write_all(&message).context("send the token")?;
    let mut reader = BufReader::new(&stream);
    loop {
        let mut head = [0; 5];
        reader.read_exact(&mut head).context("read an answer")?;
        let [kind, size @ ..] = head;
        let size = u32::from_be_bytes(size).saturating_sub(4);
        let mut body = vec![0; usize::try_from(size).unwrap_or(0)];
        reader.read_exact(&mut body).context("read an answer")?;
        match kind {
            b'Z' => break,
            b'E' => {
                return Err(Error::Program {
                    program: "chaperone".to_owned(),
                    status: "refused a session".to_owned(),
                    output: String::from_utf8_lossy(&body).into_owned(),
                });
            }
            _ => {}
        }
    }
    drop(reader);
    Ok(stream)
}

fn length(of: usize) -> [u8; 4] {
    u32::try_from(of).unwrap_or(u32::MAX).to_be_bytes()
}

/// A backend that lets everybody in and says nothing more.
fn stub(listener: &UnixListener) {
    let mut open: Vec<UnixStream> = Vec::new();
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        if greet(&mut stream).is_ok() {
            open.push(stream);
        }
    }
}

fn greet(stream: &mut UnixStream) -> std::io::Result<()> {
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let rest = u32::from_be_bytes(size).saturating_sub(4);
    let mut startup = vec![0; usize::try_from(rest).unwrap_or(0)];
    stream.read_exact(&mut startup)?;
    let mut greeting = Vec::new();
    greeting.extend_from_slice(&[b'R', 0, 0, 0, 8, 0, 0, 0, 0]);
    for (name, value) in [
        ("server_version", "15.18"),
        ("client_encoding", "UTF8"),
        ("standard_conforming_strings", "on"),
    ] {
        greeting.push(b'S');
        greeting.extend_from_slice(&length(name.len() + value.len() + 6));
        for text in [name, value] {
            greeting.extend_from_slice(text.as_bytes());
            greeting.push(0);
        }
    }
    greeting.extend_from_slice(&[b'K', 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 2]);
    greeting.extend_from_slice(&[b'Z', 0, 0, 0, 5, b'I']);
    stream.write_all(&greeting)
}
