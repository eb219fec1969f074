//! Proves to a server who we are: cleartext, md5, SCRAM-SHA-256 with and without channel binding.
//! Must never send a cleartext password over a connection that is neither TLS nor local unless
//! the server is configured to be trusted with it by having been given a plaintext password.

use super::open::{Dial, OpenError};
use super::stream::{Message, Stream};
use crate::auth::scram::{Binding, ClientExchange, Credential, MECHANISM, MECHANISM_PLUS, ScramError};
use crate::auth::{ServerSecret, certificate, md5, sasl};
use crate::config::{ChannelBinding, Password};
use crate::wire::error::ServerError;
use crate::wire::frame::be_u32;
use crate::wire::{build, tag};

/// Codes of AuthenticationRequest (src/include/libpq/protocol.h).
mod code {
    pub const OK: u32 = 0;
    pub const CLEARTEXT: u32 = 3;
    pub const MD5: u32 = 5;
    pub const SASL: u32 = 10;
    pub const SASL_CONTINUE: u32 = 11;
    pub const SASL_FINAL: u32 = 12;
}

/// Answers the server's authentication requests until it is content.
///
/// # Errors
/// [`OpenError`].
pub async fn login(stream: &mut Stream, dial: &Dial) -> Result<(), OpenError> {
    // One and the same from the first message to the last, whatever a client's login brings meanwhile.
    let secret = dial.secret.borrow().clone();
    let mut scram: Option<Scram> = None;
    loop {
        let (code, payload) = request(stream.next().await?)?;
        match code {
            code::OK => return content(dial, scram.as_ref()),
            _ if dial.channel_binding == ChannelBinding::Require && matches!(code, code::CLEARTEXT | code::MD5) => {
                return Err(unbound());
            }
            code::CLEARTEXT => answer(stream, &terminated(plain(dial, &secret)?.as_bytes())).await?,
            code::MD5 => answer(stream, &terminated(md5_answer(dial, &secret, &payload)?.as_bytes())).await?,
            code::SASL if scram.is_none() => {
                let binding = choose(stream, dial, &payload)?;
                let credential = credential(dial, &secret)?;
                let plus = binding.is_plus();
                let exchange = ClientExchange::new(credential).map_err(scram_error)?.bound(binding);
                let mechanism = if plus { MECHANISM_PLUS } else { MECHANISM };
                answer(stream, &sasl::initial_response(mechanism, &exchange.client_first())).await?;
                scram = Some(Scram { exchange, plus, proved: false });
            }
            code::SASL_CONTINUE if let Some(scram) = &mut scram => {
                let last = scram.exchange.on_server_first(&payload, &mut dial.salted.borrow_mut());
                answer(stream, &last.map_err(scram_error)?).await?;
            }
            code::SASL_FINAL if let Some(scram) = &mut scram => {
                scram.exchange.on_server_final(&payload).map_err(scram_error)?;
                scram.proved = true;
            }
            other => {
                let what = format!("the server asks for authentication method {other}, which pgweir does not know");
                return Err(OpenError::Login(what));
            }
        }
    }
}

/// An exchange under way.
struct Scram {
    exchange: ClientExchange,
    /// With channel binding.
    plus: bool,
    /// The server has proved that it knows the password.
    proved: bool,
}

/// The server says that it is content; whether we may be.
fn content(dial: &Dial, scram: Option<&Scram>) -> Result<(), OpenError> {
    match scram {
        // A server that asked for SCRAM must have proved that it knows the password too.
        Some(scram) if !scram.proved => Err(OpenError::Login("the server cut the SCRAM exchange short".into())),
        Some(scram) if scram.plus => Ok(()),
        _ if dial.channel_binding == ChannelBinding::Require => Err(unbound()),
        _ => Ok(()),
    }
}

fn unbound() -> OpenError {
    let what = "the server does not prove itself by SCRAM with channel binding, which server_channel_binding demands";
    OpenError::Login(what.into())
}

/// How to bind, by what the server offers and what its certificate allows (libpq `pg_SASL_init`).
fn choose(stream: &Stream, dial: &Dial, mechanisms: &[u8]) -> Result<Binding, OpenError> {
    let hash = match dial.channel_binding {
        ChannelBinding::Disable => None,
        ChannelBinding::Prefer | ChannelBinding::Require => {
            stream.socket().peer_certificate().and_then(certificate::end_point_hash)
        }
    };
    let binding = match hash {
        Some(hash) if sasl::offers(mechanisms, MECHANISM_PLUS) => Binding::EndPoint(hash),
        Some(_) => Binding::NotOffered,
        None => Binding::None,
    };
    if !binding.is_plus() && dial.channel_binding == ChannelBinding::Require {
        return Err(unbound());
    }
    if !binding.is_plus() && !sasl::offers(mechanisms, MECHANISM) {
        return Err(OpenError::Login("the server offers no SASL mechanism that pgweir can take part in".into()));
    }
    Ok(binding)
}

/// A plaintext password serves always; otherwise the key that a client has proved to have.
fn credential(dial: &Dial, secret: &ServerSecret) -> Result<Credential, OpenError> {
    match (&secret.stored, &secret.client_key) {
        (Some(Password::Plain(password)), _) => Ok(Credential::password(password.expose().as_bytes())),
        (_, Some(key)) => Ok(Credential::ClientKey(key.clone())),
        (_, None) => plain(dial, secret).map(|password| Credential::password(password.as_bytes())),
    }
}

fn scram_error(error: ScramError) -> OpenError {
    match error {
        ScramError::KeyMismatch => OpenError::Login(
            "the server stores another SCRAM verifier (salt or iteration count) than the one the client was checked \
             with; give pgweir the verifier of the server's pg_authid, or the password itself"
                .into(),
        ),
        error => OpenError::Login(format!("SCRAM with the server failed: {error}")),
    }
}

/// Code and payload of an AuthenticationRequest.
fn request(message: Message) -> Result<(u32, Vec<u8>), OpenError> {
    match message.tag {
        tag::server::ERROR => Err(OpenError::Refused(ServerError::parse(&message.body))),
        tag::server::AUTHENTICATION if message.body.len() >= 4 => {
            let code = be_u32(&message.body).unwrap_or(u32::MAX);
            Ok((code, message.body.get(4..).unwrap_or_default().to_vec()))
        }
        other => Err(OpenError::Login(format!("the server sent message 0x{other:02x} instead of authentication"))),
    }
}

async fn answer(stream: &mut Stream, body: &[u8]) -> Result<(), OpenError> {
    let mut out = Vec::new();
    build::message(&mut out, tag::client::PASSWORD, |out| out.extend_from_slice(body));
    Ok(stream.send(&out).await?)
}

fn terminated(text: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(text.len() + 1);
    build::cstr(&mut body, text);
    body
}

fn plain<'a>(dial: &Dial, secret: &'a ServerSecret) -> Result<&'a str, OpenError> {
    let why = match (&secret.stored, &secret.client_key) {
        (Some(Password::Plain(secret)), _) => return Ok(secret.expose()),
        (_, Some(_)) => "of which only the SCRAM key of a client's login is known: the server must ask for SCRAM",
        (Some(Password::Scram(_)), None) => {
            "of which only a SCRAM verifier is known: a client must log in by SCRAM first (not by trust or a certificate)"
        }
        (Some(Password::Md5(_)), None) => "of which only an MD5 hash is known",
        (None, None) => "for whom the configuration has none",
    };
    Err(OpenError::Login(format!("the server asks for the password of \"{}\", {why}", dial.user)))
}

fn md5_answer(dial: &Dial, secret: &ServerSecret, payload: &[u8]) -> Result<String, OpenError> {
    let salt = *payload.first_chunk::<4>().ok_or_else(|| OpenError::Login("the server sent no md5 salt".into()))?;
    if let Some(Password::Md5(secret)) = &secret.stored {
        let response = md5::response_from_hash(secret.expose(), salt);
        return response
            .map(|text| text.to_string())
            .ok_or_else(|| OpenError::Login(format!("the md5 hash of \"{}\" is malformed", dial.user)));
    }
    Ok(md5::response(&dial.user, plain(dial, secret)?.as_bytes(), salt).to_string())
}
