//! Servers by the addresses that names resolve to.
//! Must never take a server for two, nor depend on the order of an answer.

use std::net::SocketAddr;

use tokio::net::lookup_host;

use crate::config::{Endpoint, Found, Host};

/// Names with what they resolved to last.
pub(super) struct Names(Vec<(Endpoint, Vec<Endpoint>)>);

impl Names {
    pub(super) fn new(names: &[Endpoint], known: Option<&Found>) -> Self {
        let resolved = |name: &Endpoint| {
            let all = known.into_iter().flat_map(|known| &known.tls_names);
            let of_name = all.filter(|(it, its_name)| it.port == name.port && Some(its_name.as_str()) == host(name));
            of_name.map(|(endpoint, _)| endpoint.clone()).collect()
        };
        Self(names.iter().map(|name| (name.clone(), resolved(name))).collect())
    }

    /// What they resolve to now; one that does not at the moment stands for what it did last.
    pub(super) async fn ask(&mut self) -> Result<Found, String> {
        let (mut found, mut failed) = (Found::default(), Vec::new());
        let mut answers = false;
        for (name, last) in &mut self.0 {
            let Some(host) = host(name) else { continue };
            match lookup_host((host, name.port)).await {
                Ok(addresses) => {
                    let now = endpoints(addresses.collect());
                    if !now.is_empty() {
                        *last = now;
                        answers = true;
                    }
                }
                Err(error) => failed.push(format!("{name}: {error}")),
            }
            for endpoint in last {
                found.tls_names.entry(endpoint.clone()).or_insert_with(|| host.to_owned());
                found.servers.insert(endpoint.clone());
            }
        }
        if answers { Ok(found) } else { Err(failed.join("; ")) }
    }
}

fn host(name: &Endpoint) -> Option<&str> {
    match &name.host {
        Host::Tcp(host) => Some(host),
        Host::Unix(_) | Host::Unknown => None,
    }
}

/// A server that has addresses of both kinds would be there twice, as two that both take writes: those of IPv4 if there
/// are any.
fn endpoints(addresses: Vec<SocketAddr>) -> Vec<Endpoint> {
    let four = addresses.iter().any(SocketAddr::is_ipv4);
    let of_kind = addresses.into_iter().filter(|address| address.is_ipv4() == four);
    of_kind.map(|it| Endpoint { host: Host::Tcp(it.ip().to_canonical().to_string()), port: it.port() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_with_addresses_of_both_kinds_is_one() {
        let shown = |addresses: &[&str]| {
            let addresses = addresses.iter().filter_map(|address| address.parse().ok()).collect();
            endpoints(addresses).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(shown(&["[fd00::1]:5432", "10.0.0.1:5432"]), ["10.0.0.1:5432"]);
        assert_eq!(shown(&["[fd00::1]:5432", "[fd00::2]:5432"]), ["[fd00::1]:5432", "[fd00::2]:5432"]);
    }

    /// Nothing is lost of a name that does not resolve any more, nor of what was known before a reload.
    #[tokio::test]
    async fn a_name_that_fails_stands_for_what_it_was() {
        let name = |text: &str| text.parse::<Endpoint>().unwrap_or(Endpoint::UNKNOWN);
        let (works, fails) = (name("127.0.0.1:5432"), name("nowhere.invalid:5432"));
        let known = Found {
            tls_names: [(name("10.0.0.7:5432"), "nowhere.invalid".to_owned()), (works.clone(), "127.0.0.1".into())]
                .into(),
            ..Found::default()
        };
        let mut both = Names::new(&[works.clone(), fails.clone()], Some(&known));
        let found = both.ask().await.map(|found| found.servers.into_iter().collect::<Vec<_>>());
        assert_eq!(found, Ok(vec![name("10.0.0.7:5432"), works]));
        let said = Names::new(&[fails], Some(&known)).ask().await;
        assert!(said.is_err_and(|error| error.starts_with("nowhere.invalid:5432: ")));
    }
}
