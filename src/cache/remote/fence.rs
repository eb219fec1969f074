//! What stands in Redis of the fence around a database ([`crate::cache::fence`]): one hash of counts, and beside it what each process has under way.
//! Must never do a part of what belongs together: all that is written is written by scripts, which Redis runs whole or not at all.
//!
//! In the hash: `life`, drawn when it was made; `b` and `e` with a table's number, writes begun and ended; `h` with a process's number, its beats. Behind the
//! hash's name and its life, `:` and a process's number is the name of what that has under way, by number the tables; `:all` that of the set of all processes that have
//! entered. What a process has under way always has the number 0 with nothing, so that it is there: where it is not, Redis has thrown it away, and the hash is made anew. What nobody has touched for a day goes.

use std::collections::BTreeMap;

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, RedisResult};

use super::link::Link;
use super::seal::Keys;
use crate::cache::fence::{Count, Session};
use crate::config::Redis;

/// Enters a process, with all that it has under way: ends what stands there and is over, begins what does not.
const ENTER: &str = "
local life = redis.call('HGET', KEYS[1], 'life')
if life and redis.call('HEXISTS', KEYS[1], 'h' .. ARGV[2]) == 1
    and redis.call('EXISTS', KEYS[1] .. ':' .. life .. ':' .. ARGV[2]) == 0 then life = false end
if not life then
  life = ARGV[1]
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'life', life)
end
local own = KEYS[1] .. ':' .. life .. ':' .. ARGV[2]
local all = KEYS[1] .. ':' .. life .. ':all'
local live = {}
for i = 4, #ARGV, 2 do live[ARGV[i]] = ARGV[i + 1] end
local there = redis.call('HGETALL', own)
for i = 1, #there, 2 do
  if live[there[i]] then
    live[there[i]] = nil
  elseif tonumber(there[i]) <= tonumber(ARGV[3]) then
    for table in string.gmatch(there[i + 1], '%d+') do redis.call('HINCRBY', KEYS[1], 'e' .. table, 1) end
    redis.call('HDEL', own, there[i])
  end
end
for number, tables in pairs(live) do
  for table in string.gmatch(tables, '%d+') do redis.call('HINCRBY', KEYS[1], 'b' .. table, 1) end
  redis.call('HSET', own, number, tables)
end
redis.call('HSET', own, '0', '')
local beats = redis.call('HINCRBY', KEYS[1], 'h' .. ARGV[2], 1)
redis.call('SADD', all, ARGV[2])
for _, name in ipairs({KEYS[1], own, all}) do redis.call('PEXPIRE', name, 86400000) end
return {life, beats, redis.call('HGET', KEYS[1], 'b1') or '0', redis.call('HGET', KEYS[1], 'e1') or '0', redis.call('SMEMBERS', all)}";

/// A write begins.
const RAISE: &str = "
if redis.call('HGET', KEYS[1], 'life') ~= ARGV[1] then return {} end
if redis.call('HSETNX', KEYS[1] .. ':' .. ARGV[1] .. ':' .. ARGV[2], ARGV[3], ARGV[4]) == 1 then
  for table in string.gmatch(ARGV[4], '%d+') do redis.call('HINCRBY', KEYS[1], 'b' .. table, 1) end
end
return {redis.call('HGET', KEYS[1], 'b1') or '0', redis.call('HGET', KEYS[1], 'e1') or '0'}";

/// Writes have ended.
const LOWER: &str = "
if redis.call('HGET', KEYS[1], 'life') ~= ARGV[1] then return 0 end
local own = KEYS[1] .. ':' .. ARGV[1] .. ':' .. ARGV[2]
for i = 3, #ARGV do
  local tables = redis.call('HGET', own, ARGV[i])
  if tables then
    redis.call('HDEL', own, ARGV[i])
    for table in string.gmatch(tables, '%d+') do redis.call('HINCRBY', KEYS[1], 'e' .. table, 1) end
  end
end
return 1";

/// A process has gone, and left nothing under way.
const LEAVE: &str = "
local own = KEYS[1] .. ':' .. ARGV[1] .. ':' .. ARGV[2]
if redis.call('EXISTS', own) == 1 then return 0 end
redis.call('HDEL', KEYS[1], 'h' .. ARGV[2])
return redis.call('SREM', KEYS[1] .. ':' .. ARGV[1] .. ':all', ARGV[2])";

/// What a process is told that has entered.
#[derive(Debug)]
pub struct Entered {
    /// The hash's.
    pub life: String,
    /// Own beats.
    pub beats: u64,
    /// Changes of the schema.
    pub schema: Count,
    /// Who has entered.
    pub all: Vec<u32>,
}

/// The name of the hash around this database of this cluster, in this run of Redis.
#[must_use]
pub fn hash(config: &Redis, cluster: &str, database: &str, run: &str) -> String {
    let key = format!("fence {}:{cluster} {}:{database} {run}", cluster.len(), database.len());
    Keys::new(&config.secret).name(&config.prefix, key.as_bytes())
}

fn one(link: &mut Link) -> RedisResult<&mut MultiplexedConnection> {
    match link {
        Link::One(link) => Ok(link),
        Link::Many(_) => Err((ErrorKind::InvalidClientConfig, "a fence needs one server").into()),
    }
}

fn senseless() -> RedisError {
    (ErrorKind::UnexpectedReturnType, "counts are no numbers").into()
}

/// Which run of Redis this is.
///
/// # Errors
/// Redis refuses, or is gone; as for all that follow.
pub async fn run(link: &mut Link) -> RedisResult<String> {
    let told: String = redis::cmd("INFO").arg("server").query_async(one(link)?).await?;
    let run = told.lines().find_map(|line| line.strip_prefix("run_id:")).map(|run| run.trim().to_owned());
    run.ok_or_else(senseless)
}

/// Enters the process, with what it has under way up to the write of this number. A hash that is not there is made with this life.
///
/// # Errors
/// See [`run`].
pub async fn enter(
    link: &mut Link,
    hash: &str,
    life: &str,
    process: u32,
    (last, live): &(u64, Vec<(u64, Box<str>)>),
) -> RedisResult<Entered> {
    let mut cmd = redis::cmd("EVAL");
    cmd.arg(ENTER).arg(1).arg(hash).arg(life).arg(process).arg(*last);
    for (number, tables) in live {
        cmd.arg(*number).arg(&**tables);
    }
    let (life, beats, begun, ended, all): (String, u64, u64, u64, Vec<u32>) = cmd.query_async(one(link)?).await?;
    Ok(Entered { life, beats, schema: Count { begun, ended }, all })
}

/// A write of this number begins, which may change these tables. What is told of the schema then; `None`: the session is over.
///
/// # Errors
/// See [`run`]; it may have been done.
pub async fn raise(link: &mut Link, session: &Session, number: u64, tables: &str) -> RedisResult<Option<Count>> {
    let mut cmd = redis::cmd("EVAL");
    cmd.arg(RAISE).arg(1).arg(&session.hash).arg(&session.life).arg(session.process).arg(number).arg(tables);
    let told: Vec<u64> = cmd.query_async(one(link)?).await?;
    Ok(told.first().zip(told.get(1)).map(|(&begun, &ended)| Count { begun, ended }))
}

/// Writes of this process have ended.
///
/// # Errors
/// See [`run`].
pub async fn lower(link: &mut Link, session: &Session, process: u32, numbers: &[u64]) -> RedisResult<()> {
    let mut cmd = redis::cmd("EVAL");
    cmd.arg(LOWER).arg(1).arg(&session.hash).arg(&session.life).arg(process).arg(numbers);
    cmd.query_async(one(link)?).await
}

/// The counts of these tables. `None`: the session is over, or the hash has gone back behind so many beats.
///
/// # Errors
/// See [`run`].
pub async fn counts(
    link: &mut Link,
    session: &Session,
    beats: u64,
    tables: impl Iterator<Item = u32> + Clone,
) -> RedisResult<Option<BTreeMap<u32, Count>>> {
    let mut cmd = redis::cmd("HMGET");
    cmd.arg(&session.hash).arg("life").arg(format!("h{}", session.process));
    for table in tables.clone() {
        cmd.arg(format!("b{table}")).arg(format!("e{table}"));
    }
    let told: Vec<Option<String>> = cmd.query_async(one(link)?).await?;
    let [life, counted, rest @ ..] = &told[..] else { return Err(senseless()) };
    let number = |text: &Option<String>| text.as_ref().map_or(Ok(0), |text| text.parse().map_err(|_| senseless()));
    if life.as_deref() != Some(&*session.life) || number(counted)? < beats {
        return Ok(None);
    }
    let counts = rest.chunks_exact(2).map(|both| Ok(Count { begun: number(&both[0])?, ended: number(&both[1])? }));
    let counts = counts.collect::<RedisResult<Vec<_>>>()?;
    Ok(Some(tables.zip(counts).collect()))
}

/// The numbers of what a process has under way.
///
/// # Errors
/// See [`run`].
pub async fn left_by(link: &mut Link, session: &Session, process: u32) -> RedisResult<Vec<u64>> {
    let name = format!("{}:{}:{process}", session.hash, session.life);
    redis::cmd("HKEYS").arg(name).query_async(one(link)?).await
}

/// A process has gone; nothing is done if it has anything under way.
///
/// # Errors
/// See [`run`].
pub async fn leave(link: &mut Link, session: &Session, process: u32) -> RedisResult<()> {
    let mut cmd = redis::cmd("EVAL");
    cmd.arg(LEAVE).arg(1).arg(&session.hash).arg(&session.life).arg(process);
    cmd.query_async(one(link)?).await
}

/// Throws a hash away that is not what it was: who comes next makes another life.
///
/// # Errors
/// See [`run`].
pub async fn throw_away(link: &mut Link, hash: &str) -> RedisResult<()> {
    redis::cmd("DEL").arg(hash).query_async(one(link)?).await
}
