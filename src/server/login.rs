//! Proves to a server who we are: cleartext, md5, SCRAM-SHA-256.
//! Must never send a cleartext password over a connection that is neither TLS nor local unless
//! the server is configured to be trusted with it by having been given a plaintext password.

use super::open::{Dial, OpenError};
use super::stream::{Message, Stream};
use crate::auth::scram::{ClientExchange, Credential};
use crate::auth::{md5, sasl};
use crate::config::Password;
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
    let mut scram: Option<ClientExchange> = None;
    let mut server_proved = false;
    loop {
        let (code, payload) = request(stream.next().await?)?;
        match code {
            // A server that asked for SCRAM must have proved that it knows the password too.
            code::OK if scram.is_some() && !server_proved => {
                return Err(OpenError::Login("the server cut the SCRAM exchange short".into()));
            }
            code::OK => return Ok(()),
            code::CLEARTEXT => answer(stream, &terminated(plain(dial)?.as_bytes())).await?,
            code::MD5 => answer(stream, &terminated(md5_answer(dial, &payload)?.as_bytes())).await?,
            code::SASL if scram.is_none() => {
                if !sasl::offers_scram(&payload) {
                    return Err(OpenError::Login("the server offers no SASL mechanism that pgweir knows".into()));
                }
                let credential = Credential::password(plain(dial)?.as_bytes());
                let exchange = ClientExchange::new(credential).map_err(scram_error)?;
                answer(stream, &sasl::initial_response(&exchange.client_first())).await?;
                scram = Some(exchange);
            }
            code::SASL_CONTINUE if let Some(exchange) = &mut scram => {
                let last = exchange.on_server_first(&payload, &mut dial.salted.borrow_mut()).map_err(scram_error)?;
                answer(stream, &last).await?;
            }
            code::SASL_FINAL if let Some(exchange) = &mut scram => {
                exchange.on_server_final(&payload).map_err(scram_error)?;
                server_proved = true;
            }
            other => {
                let what = format!("the server asks for authentication method {other}, which pgweir does not know");
                return Err(OpenError::Login(what));
            }
        }
    }
}

fn scram_error(error: crate::auth::scram::ScramError) -> OpenError {
    OpenError::Login(format!("SCRAM with the server failed: {error}"))
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

fn plain(dial: &Dial) -> Result<&str, OpenError> {
    match &dial.password {
        Some(Password::Plain(secret)) => Ok(secret.expose()),
        Some(_) => Err(OpenError::Login(format!(
            "the server asks for the password of \"{}\", of which the configuration has only a hash",
            dial.user
        ))),
        None => Err(OpenError::Login(format!(
            "the server asks for the password of \"{}\", for whom the configuration has none",
            dial.user
        ))),
    }
}

fn md5_answer(dial: &Dial, payload: &[u8]) -> Result<String, OpenError> {
    let salt = *payload.first_chunk::<4>().ok_or_else(|| OpenError::Login("the server sent no md5 salt".into()))?;
    if let Some(Password::Md5(secret)) = &dial.password {
        let response = md5::response_from_hash(secret.expose(), salt);
        return response
            .map(|text| text.to_string())
            .ok_or_else(|| OpenError::Login(format!("the md5 hash of \"{}\" is malformed", dial.user)));
    }
    Ok(md5::response(&dial.user, plain(dial)?.as_bytes(), salt).to_string())
}
