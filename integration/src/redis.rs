//! A Redis server in a folder of its own.
//! It must never write to disk but for its own account of who it is, and what a test has it save.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use crate::certs::Certificates;
use crate::error::{During, Error, Result};
use crate::port::Port;
use crate::process::{Process, tied};
use crate::run::Run;

/// A running Redis; stopped and removed when dropped.
#[derive(Debug)]
pub struct Redis {
    folder: PathBuf,
    port: Port,
    /// Where it also listens with TLS.
    tls: Option<Port>,
    args: Vec<String>,
    password: Option<String>,
    process: Process,
}

/// What Redis answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing.
    Nil,
    /// A status or a string.
    Bytes(Vec<u8>),
    /// A number.
    Number(i64),
    /// Several.
    List(Vec<Self>),
}

impl Reply {
    /// The text of a status, string or number.
    pub fn text(&self) -> String {
        match self {
            Self::Nil => String::new(),
            Self::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Number(number) => number.to_string(),
            Self::List(items) => items.iter().map(Self::text).collect::<Vec<_>>().join(" "),
        }
    }

    /// The texts of a list.
    pub fn texts(&self) -> Vec<String> {
        match self {
            Self::List(items) => items.iter().map(Self::text).collect(),
            one => vec![one.text()],
        }
    }
}

impl Redis {
    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    /// With its output when it does not.
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// The same with more of its options, each a word.
    ///
    /// # Errors
    /// As there.
    pub fn start_with(args: &[&str]) -> Result<Self> {
        let folder = Run::current()?.folder("redis")?;
        Self::start_in(folder, Port::reserve()?, None, args.iter().map(ToString::to_string).collect())
    }

    /// One that also listens with TLS, and wants certificates of its clients.
    ///
    /// # Errors
    /// As there.
    pub fn start_tls(files: &Certificates) -> Result<Self> {
        let folder = Run::current()?.folder("redis")?;
        let tls = Port::reserve()?;
        let mut args = vec!["--tls-port".to_owned(), tls.number().to_string()];
        for (name, path) in [("cert", &files.certificate), ("key", &files.key), ("ca-cert", &files.ca)] {
            args.extend([format!("--tls-{name}-file"), path.display().to_string()]);
        }
        Self::start_in(folder, Port::reserve()?, Some(tls), args)
    }

    fn start_in(folder: PathBuf, port: Port, tls: Option<Port>, args: Vec<String>) -> Result<Self> {
        let password = args.iter().position(|arg| arg == "--requirepass").and_then(|at| args.get(at + 1).cloned());
        let process = run(&folder, &port, &args, "redis")?;
        let redis = Self { folder, port, tls, args, password, process };
        redis.wait()?;
        Ok(redis)
    }

    fn wait(&self) -> Result<()> {
        self.process
            .wait_until(Duration::from_secs(20), || self.ask(&["PING"]).is_ok_and(|reply| reply.text() == "PONG"))
    }

    /// Ends it at once, whatever it does.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill(&self) -> Result<()> {
        self.process.signal(Signal::CONT);
        self.process.stop(Signal::KILL).map(drop)
    }

    /// Starts one that was killed again, on the same port.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub fn start_again(&mut self) -> Result<()> {
        self.process = run(&self.folder, &self.port, &self.args, "redis")?;
        self.wait()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The port with TLS.
    pub fn tls_port(&self) -> Option<u16> {
        self.tls.as_ref().map(Port::number)
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// `redis://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Sends an inline command and gives what came back first.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn command(&self, line: &str) -> Result<String> {
        let mut stream = connect(self.port())?;
        stream.write_all(format!("{line}\r\n").as_bytes()).during(|| "send to redis".into())?;
        let mut answer = [0; 4096];
        let count = stream.read(&mut answer).during(|| "receive from redis".into())?;
        Ok(String::from_utf8_lossy(answer.get(..count).unwrap_or_default()).into_owned())
    }

    /// Runs a command of these words, as its default user.
    ///
    /// # Errors
    /// When it answers with an error, or not.
    pub fn ask(&self, words: &[&str]) -> Result<Reply> {
        self.ask_bytes(&words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>())
    }

    /// The same of any bytes.
    ///
    /// # Errors
    /// As there.
    pub fn ask_bytes(&self, words: &[&[u8]]) -> Result<Reply> {
        let mut stream = BufReader::new(connect(self.port())?);
        if let Some(password) = &self.password {
            send(stream.get_mut(), &[b"AUTH", password.as_bytes()])?;
            receive(&mut stream)?;
        }
        send(stream.get_mut(), words)?;
        receive(&mut stream)
    }

    /// The names it has, in order.
    ///
    /// # Errors
    /// As [`Redis::ask`].
    pub fn names(&self) -> Result<Vec<String>> {
        let answer = self.ask(&["SCAN", "0", "TYPE", "string", "COUNT", "1000000"])?;
        let Reply::List(parts) = answer else { return Err(Error::new(format!("SCAN answers {}", answer.text()))) };
        let mut names = parts.get(1).map(Reply::texts).unwrap_or_default();
        names.sort();
        Ok(names)
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        self.process.output()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.process.signal(Signal::CONT);
        let _ = self.process.stop(Signal::KILL);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn run(folder: &PathBuf, port: &Port, args: &[String], name: &str) -> Result<Process> {
    let mut command = tied("redis-server", Run::current()?.account(), "KILL");
    // A sentinel writes its own configuration, and cannot do without.
    if let Some(file) = args.iter().find(|arg| arg.ends_with(".conf")) {
        command.arg(file);
    }
    let sentinel = args.iter().any(|arg| arg == "--sentinel");
    command.args(["--bind", "127.0.0.1", "--daemonize", "no", "--port", &port.number().to_string()]);
    if !sentinel {
        command.args([
            "--save",
            "",
            "--appendonly",
            "no",
            "--repl-diskless-sync",
            "yes",
            "--repl-diskless-sync-delay",
            "0",
        ]);
    }
    command.args(args.iter().filter(|arg| !arg.ends_with(".conf"))).current_dir(folder);
    Process::start(command, name, &folder.join("log"))
}

fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).during(|| "connect to redis".into())?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).during(|| "set a timeout".into())?;
    Ok(stream)
}

fn send(stream: &mut TcpStream, words: &[&[u8]]) -> Result<()> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
    stream.write_all(&out).during(|| "send to redis".into())
}

/// Redis' protocol, as far as tests need it (<https://redis.io/docs/latest/develop/reference/protocol-spec/>).
fn receive(stream: &mut BufReader<TcpStream>) -> Result<Reply> {
    let mut line = String::new();
    stream.read_line(&mut line).during(|| "receive from redis".into())?;
    let (kind, rest) = line.trim_end().split_at_checked(1).ok_or_else(|| Error::new("redis has hung up"))?;
    let number = || rest.parse::<i64>().map_err(|_| Error::new(format!("redis says {line:?}")));
    match kind {
        "+" => Ok(Reply::Bytes(rest.into())),
        "-" => Err(Error::new(format!("redis refuses: {rest}"))),
        ":" => Ok(Reply::Number(number()?)),
        "$" => {
            let Ok(length) = usize::try_from(number()?) else { return Ok(Reply::Nil) };
            let mut bytes = vec![0; length + 2];
            stream.read_exact(&mut bytes).during(|| "receive from redis".into())?;
            bytes.truncate(length);
            Ok(Reply::Bytes(bytes))
        }
        "*" => (0..number()?).map(|_| receive(stream)).collect::<Result<_>>().map(Reply::List),
        _ => Err(Error::new(format!("redis says {line:?}"))),
    }
}

/// Sentinels and the servers that they watch.
#[derive(Debug)]
pub struct Sentinels {
    /// The first one began as the master.
    pub servers: Vec<Redis>,
    /// Those who watch.
    pub sentinels: Vec<Redis>,
}

impl Sentinels {
    /// What the master is called.
    pub const NAME: &'static str = "answers";

    /// Starts two servers, and three sentinels which take a server for down after half a second.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub fn start() -> Result<Self> {
        let master = Redis::start()?;
        let port = master.port().to_string();
        let replica = Redis::start_with(&["--replicaof", "127.0.0.1", &port])?;
        let run = Run::current()?;
        let sentinel = || {
            let folder = run.folder("sentinel")?;
            let file = folder.join("sentinel.conf");
            let name = Self::NAME;
            let text = format!(
                "sentinel monitor {name} 127.0.0.1 {port} 2\nsentinel down-after-milliseconds {name} 500\n\
                 sentinel failover-timeout {name} 3000\n"
            );
            fs::write(&file, text).during(|| "write a sentinel's configuration".into())?;
            run.give(&file)?;
            Redis::start_in(folder, Port::reserve()?, None, vec![file.display().to_string(), "--sentinel".into()])
        };
        let sentinels = (0..3).map(|_| sentinel()).collect::<Result<_>>()?;
        Ok(Self { servers: vec![master, replica], sentinels })
    }

    /// The port of the master, as the sentinels have it.
    ///
    /// # Errors
    /// As [`Redis::ask`].
    pub fn master(&self) -> Result<String> {
        let reply = self.sentinels.first().map(|it| it.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Self::NAME]));
        let reply = reply.ok_or_else(|| Error::new("no sentinel"))??;
        Ok(reply.texts().get(1).cloned().unwrap_or_default())
    }

    /// Whether all sentinels know each other and the replica: until then none of them can act.
    pub fn are_ready(&self) -> bool {
        self.sentinels.iter().all(|it| {
            let about = it.ask(&["SENTINEL", "MASTER", Self::NAME]).map(|reply| reply.texts()).unwrap_or_default();
            let value = |name: &str| about.iter().position(|it| it == name).and_then(|at| about.get(at + 1));
            value("num-other-sentinels").is_some_and(|it| it == "2") && value("num-slaves").is_some_and(|it| it == "1")
        })
    }
}

/// A cluster of three masters and a replica of each.
#[derive(Debug)]
pub struct RedisCluster {
    /// Masters first.
    pub nodes: Vec<Redis>,
    _buses: Vec<Port>,
}

impl RedisCluster {
    /// Starts six nodes and makes them a cluster; [`RedisCluster::is_ready`] tells when they are.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub fn start() -> Result<Self> {
        let buses = (0..6).map(|_| Port::reserve()).collect::<Result<Vec<_>>>()?;
        let nodes = buses.iter().map(|bus| {
            let bus = bus.number().to_string();
            Redis::start_with(&["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port", &bus])
        });
        let nodes = nodes.collect::<Result<Vec<_>>>()?;
        let Some(first) = nodes.first() else { return Err(Error::new("no node")) };
        for (number, (node, bus)) in nodes.iter().zip(&buses).enumerate().skip(1) {
            let (port, bus) = (node.port().to_string(), bus.number().to_string());
            first.ask(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus])?;
            node.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()])?;
        }
        for (node, (from, to)) in nodes.iter().zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")]) {
            node.ask(&["CLUSTER", "ADDSLOTSRANGE", from, to])?;
        }
        Ok(Self { nodes, _buses: buses })
    }

    /// Whether all nodes know each other and each master has a replica; makes replicas of those that can be by now.
    pub fn is_ready(&self) -> bool {
        for (replica, master) in self.nodes.iter().skip(3).zip(&self.nodes) {
            let Ok(id) = master.ask(&["CLUSTER", "MYID"]) else { return false };
            let is_replica =
                replica.ask(&["ROLE"]).is_ok_and(|role| role.texts().first().is_some_and(|it| it == "slave"));
            if !is_replica && replica.ask(&["CLUSTER", "REPLICATE", &id.text()]).is_err() {
                return false;
            }
        }
        self.nodes.iter().all(|node| {
            let info = node.ask(&["CLUSTER", "INFO"]).map(|reply| reply.text()).unwrap_or_default();
            let nodes = node.ask(&["CLUSTER", "NODES"]).map(|reply| reply.text()).unwrap_or_default();
            info.contains("cluster_state:ok")
                && nodes.matches("master").count() == 3
                && nodes.matches(" connected").count() == 6
                && nodes.matches("slave").count() == 3
        })
    }
}
