//! The HTTP API against its own description, and its numbers against what was done.
//! It must never accept an answer that has more or less than is described.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::common::{eventually, within};
use crate::{ask, client, conf, json, only, ready};

/// The schema that a `$ref` means.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(place) => document.pointer(place.trim_start_matches('#')).unwrap_or_else(|| panic!("no {place}")),
        None => schema,
    }
}

/// Whether everything that the schema describes is there, and notes which fields were.
fn complete(document: &Value, schema: &Value, value: &Value, path: &str, seen: &mut BTreeSet<String>) {
    let schema = resolved(document, schema);
    // null, or what is described.
    for either in schema["oneOf"].as_array().into_iter().flatten() {
        if !value.is_null() && either["type"] != "null" {
            complete(document, either, value, path, seen);
        }
    }
    for (name, of) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(object) = value.as_object() {
            let field = object.get(name).unwrap_or_else(|| panic!("{path} has no {name}: {value}"));
            seen.insert(format!("{path}.{name}"));
            complete(document, of, field, &format!("{path}.{name}"), seen);
        }
    }
    for item in value.as_array().into_iter().flatten() {
        complete(document, &schema["items"], item, &format!("{path}[]"), seen);
    }
}

#[test]
fn every_answer_is_as_described() {
    let pgweir = conf().rest("[cache]\nmode = \"on\"\nttl = \"1m\"\n").start();
    ready(&pgweir);
    let mut client = client(&pgweir);
    client.query("CREATE TEMP TABLE kept (n int)").unwrap();
    client.query("SELECT 1").unwrap();
    client.query("SELECT pg_sleep(0.15)").unwrap();
    client.query("SELECT pg_current_wal_lsn()").unwrap();
    within(std::time::Duration::from_secs(40), "there is a step", || {
        !json(&pgweir, "/api/history")["steps"].as_array().unwrap().is_empty()
    });
    eventually("the pin is shown", || {
        !json(&pgweir, "/api/database/optimizations")["pinned_sessions"].as_array().unwrap().is_empty()
    });
    let document = json(&pgweir, "/api/openapi.json");
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        let is_closed = schema["type"] != "object" || schema["additionalProperties"] == false;
        assert!(is_closed || name == "Invalidation", "{name} allows anything");
    }
    let shape =
        only(&json(&pgweir, "/api/queries")["queries"], |it| it["query"].as_str().unwrap().contains("pg_sleep"));
    let mut names = BTreeSet::new();
    let mut paths = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        paths += 1;
        if path == "/api/cache/invalidate" {
            let properties = document["components"]["schemas"]["Invalidation"]["properties"].as_object().unwrap();
            for (field, value) in
                [("table", json!("t")), ("tag", json!("t")), ("shape", json!("7")), ("all", json!(true))]
            {
                assert!(properties.contains_key(field) && item["post"]["requestBody"].is_object(), "{item:#}");
                let body = json!({ field: value }).to_string();
                let (status, answer) = integration::http::post(pgweir.stats_port(), path, &body).unwrap();
                assert_eq!(status, 200, "{body}: {answer}");
            }
            continue;
        }
        let asked = path.replace("{shape}", shape["shape"].as_str().unwrap());
        assert!(names.insert(item["get"]["operationId"].as_str().unwrap()), "{path} is called as another is");
        let media = item["get"]["responses"]["200"]["content"].as_object().unwrap();
        if !media.contains_key("application/json") {
            for media in media.keys() {
                let answer = ask(&pgweir, &format!("GET {asked}"), &["Host: localhost", &format!("Accept: {media}")]);
                assert_eq!(answer.status, 200);
                assert!(
                    answer
                        .head
                        .replace(' ', "")
                        .contains(&format!("content-type:{}", media.replace(' ', "").to_lowercase())),
                    "{media}: {}",
                    answer.head
                );
            }
            continue;
        }
        let answer = json(&pgweir, &asked);
        let schema = &item["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        let mut whole = schema.clone();
        whole["components"] = document["components"].clone();
        let validator = jsonschema::draft202012::new(&whole).unwrap();
        let errors: Vec<String> =
            validator.iter_errors(&answer).map(|it| format!("{it} at {}", it.instance_path())).collect();
        assert!(errors.is_empty(), "{path}: {errors:#?}\n{answer:#}");
        let mut seen = BTreeSet::new();
        complete(&document, schema, &answer, path, &mut seen);
        assert!(seen.len() > 1 || path == "/api/openapi.json", "{path}: nothing is described");
    }
    assert_eq!(paths, 18, "a path was added or lost");
}

#[test]
fn numbers_are_those_of_what_was_done() {
    let pgweir = conf().size(3).start();
    ready(&pgweir);
    let mut client = client(&pgweir);
    for _ in 0..7 {
        client.query("SELECT 4 + 3").unwrap();
    }
    for _ in 0..2 {
        client.query("SELECT 1/0").unwrap_err();
    }
    client.query("SELECT pg_sleep(0.2)").unwrap();
    let all = json(&pgweir, "/api/queries?by=calls&limit=2");
    assert_eq!(
        (&all["by"], &all["limit"], &all["database"], &all["shapes"]),
        (&json!("calls"), &json!(2), &Value::Null, &json!(3))
    );
    assert_eq!(all["queries"].as_array().unwrap().len(), 2);
    let most = &all["queries"][0];
    assert_eq!((&most["calls_total"], &most["errors_total"], &most["rows_total"]), (&json!(7), &json!(0), &json!(7)));
    let by_errors = json(&pgweir, "/api/queries?by=errors&limit=1&database=app");
    assert_eq!(by_errors["queries"][0]["errors_total"], 2);
    let slow = json(&pgweir, "/api/database/slow-queries?by=p99&limit=1");
    let p99 = slow["queries"][0]["time"]["p99_seconds"].as_f64().unwrap();
    assert!((0.18..5.0).contains(&p99), "{slow:#}");
    let shape = most["shape"].as_str().unwrap();
    let one = json(&pgweir, &format!("/api/queries/{shape}"));
    let buckets = one["pools"][0]["time_buckets"].as_array().unwrap();
    assert_eq!(buckets.iter().map(|bucket| bucket["count"].as_u64().unwrap()).sum::<u64>(), 7);
    assert_ne!(one["verdict"]["route"], "primary");
    let metrics = json(&pgweir, "/api/database/metrics");
    let app = only(&metrics["databases"], |it| it["database"] == "app");
    assert_eq!(
        (&app["queries_total"], &app["errors_total"], &app["primary_reachable"]),
        (&json!(10), &json!(2), &json!(true))
    );
    let pools = json(&pgweir, "/api/pools");
    assert!(pools["pools"].as_array().unwrap().iter().all(|pool| pool["size"] == 3), "{pools:#}");
    let sum: u64 = pools["pools"].as_array().unwrap().iter().map(|pool| pool["queries_total"].as_u64().unwrap()).sum();
    assert_eq!(sum, 10);
}

#[test]
fn hosts_roles_and_advice() {
    let pgweir = conf().start();
    ready(&pgweir);
    let mut client = client(&pgweir);
    eventually("both hosts are known", || {
        let status = json(&pgweir, "/api/services/status");
        let hosts = status["databases"][0]["hosts"].clone();
        let role = |role: &str| hosts.as_array().unwrap().iter().filter(|host| host["role"] == role).count();
        role("primary") == 1 && role("standby") == 1
    });
    let status = json(&pgweir, "/api/services/status");
    assert_eq!((&status["ready"], &status["process"]["pid"]), (&json!(true), &json!(pgweir.id())));
    let of = |what: &str| only(&status["listeners"], |it| it["of"] == what)["address"].as_str().unwrap().to_owned();
    assert_eq!(of("clients"), format!("127.0.0.1:{}", pgweir.port()));
    assert_eq!(of("stats"), format!("http://127.0.0.1:{}", pgweir.stats_port()));
    client.query("CREATE TEMP TABLE mine (n int)").unwrap();
    for _ in 0..5 {
        client.query("SELECT pg_sleep(0.11)").unwrap();
        client.query("SELECT pg_current_wal_lsn()").unwrap();
        client.query("SELECT count(*) AS held FROM pg_stat_activity").unwrap();
    }
    eventually("the pin is shown", || {
        !json(&pgweir, "/api/database/optimizations")["pinned_sessions"].as_array().unwrap().is_empty()
    });
    let advice = json(&pgweir, "/api/database/optimizations");
    let pinned = &advice["pinned_sessions"][0];
    assert_eq!((&pinned["reason"], &pinned["user"]), (&json!("temp table"), &json!("app")));
    assert!(pinned["hint"].as_str().unwrap().contains("ON COMMIT DROP"));
    // What belongs on the primary is no advice.
    let held = only(&advice["primary_only"], |it| it["database"] == "app");
    assert_eq!((&held["calls_total"], &held["reason"]), (&json!(5), &json!("catalog_relation")));
    assert!(held["query"].as_str().unwrap().contains("as held"), "{held:#}");
    let slow = only(&advice["slow_shapes"], |it| it["numbers"]["query"].as_str().unwrap().contains("pg_sleep"));
    assert_eq!(slow["cause"], "server");
}

#[test]
fn bad_parameters_are_refused_in_words() {
    let pgweir = conf().start();
    let refused = |path: &str| {
        let answer = ask(&pgweir, &format!("GET {path}"), &["Host: localhost"]);
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        (answer.status, body["error"].as_str().unwrap().to_owned())
    };
    for (path, status, why) in [
        ("/api/queries?by=size", 400, "unknown variant `size`, expected one of `total`, `p99`, `calls`, `errors`"),
        ("/api/queries?limit=0", 400, "a number from 1 to 10000"),
        ("/api/queries?limit=many", 400, "limit: invalid digit"),
        ("/api/queries?lmit=5", 400, "unknown field `lmit`, expected one of `by`, `limit`, `database`"),
        ("/api/database/slow-queries?database=nowhere", 404, "no such database: nowhere"),
        ("/api/queries/xyz", 400, "16 hexadecimal digits or `other`"),
        ("/api/queries/0000000000000001", 404, "no statement of shape 0000000000000001 is known"),
        ("/api/queries/other?limit=5", 400, "unknown field `limit`"),
        ("/api/pools?database=app", 400, "unknown field `database`, there are no fields"),
        ("/api/services/status?x", 400, "unknown field `x`"),
        ("/api/database/plans?shape=1", 400, "16 hexadecimal digits"),
        ("/api/nothing", 404, "no such path: /api/nothing"),
    ] {
        let (found, said) = refused(path);
        assert!(found == status && said.contains(why), "{path}: {found} {said}");
    }
    let other = ask(&pgweir, "DELETE /api/pools", &["Host: localhost"]);
    assert!(other.status == 405 && other.body.contains("only GET and HEAD"), "{} {}", other.status, other.body);
}
